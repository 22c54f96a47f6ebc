"""What a field file's header says of its array, checked against the task; then its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.challenge.model import FieldDtype, Layout
from harness.challenge.shape_hint import shape_hint
from harness.errors import FieldError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.challenge.field import FloatArray
    from harness.challenge.inflate import ByteStream
    from harness.challenge.model import FieldSpec

_CHUNK_BYTES = 1 << 18
_CHECKED_VALUES = 1 << 16  # as many as stay in the cache
_MAX_SHOWN = 60  # characters of a file's own text that a message repeats
_FLOAT16_MAX = 65504
_FLOAT16_EXPONENT = np.uint16(0x7C00)


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array as its header describes it. ``dtype``: NumPy's name of the type, or what a message
    calls one that has none."""

    shape: tuple[int, ...]
    dtype: str
    big_endian: bool
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Of an array whose type is known to be one of :class:`FieldDtype`."""
        return math.prod(self.shape) * FieldDtype(self.dtype).itemsize


def check_stored(stored: StoredArray, spec: FieldSpec) -> Layout:
    """Which of the accepted layouts the array has.

    Raises FieldError with all that is wrong with its type and shape, and how to mend it.
    """
    problems = []
    if stored.dtype not in spec.dtypes:
        wanted = " or ".join(spec.dtypes)
        problems.append(
            f"expected dtype {wanted}, found {stored.dtype}{_dtype_hint(stored.dtype, spec.dtype)}"
        )
    layout = spec.layout_of(stored.shape)
    if layout is None:
        wanted = " or ".join(str(spec.shape_in(one)) for one in spec.layouts)
        problems.append(
            f"expected shape {wanted}, found {shown(str(stored.shape))}"
            f"{shape_hint(stored.shape, spec)}"
        )
    if problems or layout is None:
        raise FieldError("; ".join(problems))
    return layout


def _dtype_hint(found: str, wanted: FieldDtype) -> str:
    if found.startswith("float"):
        return f": field.astype(np.{wanted})"
    if found.startswith(("int", "uint")):
        return f", which holds no fractions of a voxel: field.astype(np.{wanted})"
    return ""


def read_vectors(stream: ByteStream, stored: StoredArray, layout: Layout) -> FloatArray:
    """The values of an array that passed :func:`check_stored`, and then the stream's end.

    Returns (3, X, Y, Z) in the type they are stored in, in this machine's byte order: a view of the
    one buffer that is ever held. Raises FieldError where values are missing, left over or not
    finite.
    """
    raw = np.empty(stored.nbytes, dtype=np.uint8)
    n_read = _fill(raw, stream)
    if n_read != raw.nbytes:
        raise FieldError(f"expected {raw.nbytes} bytes of values, found {n_read}")
    if stream.read(1):
        raise FieldError(f"expected {raw.nbytes} bytes of values, found more")
    values = raw.view(np.dtype(stored.dtype).newbyteorder(">" if stored.big_endian else "<"))
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    _check_finite(values)
    array = values.reshape(stored.shape, order="F" if stored.fortran_order else "C")
    return array if layout is Layout.CHANNELS_FIRST else np.moveaxis(array, -1, 0)


def _fill(raw: NDArray[np.uint8], stream: ByteStream) -> int:
    """Fill the buffer as far as the stream goes; how many bytes that was."""
    buffer = raw.data
    n_read = 0
    while chunk := stream.read(min(_CHUNK_BYTES, raw.nbytes - n_read)):
        buffer[n_read : n_read + len(chunk)] = chunk
        n_read += len(chunk)
    return n_read


def _check_finite(values: FloatArray) -> None:
    """Piece by piece: the truth values of all at once would need half the memory of float16."""
    n_nan = n_infinite = 0
    for start in range(0, values.size, _CHECKED_VALUES):
        piece = values[start : start + _CHECKED_VALUES]
        if not _are_finite(piece):
            n_nan += int(np.count_nonzero(np.isnan(piece)))
            n_infinite += int(np.count_nonzero(np.isinf(piece)))
    if not n_nan and not n_infinite:
        return
    found = []
    if n_nan:
        found.append(f"{n_nan} values that are NaN")
    if n_infinite:
        found.append(f"{n_infinite} values that are infinite")
    hint = ""
    if n_infinite and values.dtype == np.float16:
        hint = f"; float16 holds at most {_FLOAT16_MAX}: are they in voxels?"
    raise FieldError(f"expected finite displacements, found {' and '.join(found)}{hint}")


def _are_finite(values: FloatArray) -> bool:
    if values.dtype == np.float16:
        # All bits of the exponent are set; NumPy converts each value, 20 times as long.
        return not ((values.view(np.uint16) & _FLOAT16_EXPONENT) == _FLOAT16_EXPONENT).any()
    return bool(np.isfinite(values).all())


def shown(text: str) -> str:
    """As much of a file's own text as a message repeats; the caller has made it printable."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."

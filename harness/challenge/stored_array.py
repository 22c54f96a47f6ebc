"""What a field file's header says of its array, checked against the task; then its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.challenge.field_error import FieldFileError, FieldProblem, unreadable
from harness.challenge.model import FieldDtype, Layout
from harness.challenge.shape_hint import cast, shape_hint

if TYPE_CHECKING:
    from harness.challenge.field import FloatArray
    from harness.challenge.inflate import ByteStream
    from harness.challenge.model import FieldSpec

_CHUNK_BYTES = 1 << 18
_CHECKED_VALUES = 1 << 16  # as many as stay in the cache
_MAX_SHOWN = 60  # characters of a file's own text that a message repeats
_FLOAT16_MAX = 65504
_FLOAT16_EXPONENT = 0x7C00
# First bytes of values that are not finite, by the size of their type.
_NOT_FINITE = {2: bytes((*range(0x7C, 0x80), *range(0xFC, 0x100))), 4: b"\x7f\xff", 8: b"\x7f\xff"}


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array as its header describes it. ``dtype``: NumPy's name of the type, or what a message
    calls one that has none. ``scaled``: its numbers stand for others, by a slope and intercept."""

    shape: tuple[int, ...]
    dtype: str
    big_endian: bool
    fortran_order: bool
    scaled: bool = False

    @property
    def nbytes(self) -> int:
        """Of an array whose type is known to be one of :class:`FieldDtype`."""
        return math.prod(self.shape) * FieldDtype(self.dtype).itemsize


def check_stored(stored: StoredArray, spec: FieldSpec) -> Layout:
    """Which of the accepted layouts the array has.

    Raises FieldError with all that is wrong with its type and shape, and how to mend it.
    """
    expected, found, type_fix, shape_fix = [], [], "", ""
    if stored.dtype not in spec.dtypes:
        expected.append(f"dtype {' or '.join(spec.dtypes)}")
        found.append(stored.dtype + (", scaled" if stored.scaled else ""))
        type_fix = _dtype_hint(stored, spec)
    layout = spec.layout_of(stored.shape)
    if layout is None:
        expected.append(f"shape {' or '.join(str(spec.shape_in(one)) for one in spec.layouts)}")
        found.append(shown(str(stored.shape)))
        shape_fix = shape_hint(stored.shape, spec)
    if expected or layout is None:
        raise FieldFileError(
            expected=" and ".join(expected),
            found=" and ".join(found),
            problem=FieldProblem.WRONG_SHAPE if layout is None else FieldProblem.WRONG_DTYPE,
            fix=_joined(shape_fix, type_fix),
        )
    return layout


def _joined(shape_fix: str, type_fix: str) -> str:
    """The type last: what changes a shape may change the type, too, or not take half precision."""
    if type_fix in shape_fix.split("; "):
        return shape_fix
    return "; ".join(filter(None, (shape_fix, type_fix)))


def _dtype_hint(stored: StoredArray, spec: FieldSpec) -> str:
    found = stored.dtype
    if stored.scaled:
        return (
            "store the displacements themselves, unscaled: "
            f"nib.Nifti1Image(field.astype(np.{spec.dtype}), np.eye(4))"
        )
    if found.startswith("float"):
        return cast(spec)
    if found.startswith(("int", "uint")):
        return f"whole numbers hold no parts of a voxel: {cast(spec)}"
    if found == "bool":
        return f"is it a mask? {cast(spec)}"
    if found.startswith("complex"):
        return f"displacements are real numbers: {cast(spec).replace('field', 'field.real')}"
    return ""


@dataclass(frozen=True, kw_only=True)
class OpenArray:
    """An array that passed :func:`check_stored`, and the stream that its values come next in."""

    stream: ByteStream
    stored: StoredArray
    layout: Layout


@dataclass(frozen=True, kw_only=True)
class FieldValues:
    """The bytes of a field's values, all of them, and how they are to be read."""

    raw: bytearray
    stored: StoredArray
    layout: Layout

    def are_surely_finite(self) -> bool:
        """Is no value's first byte (sign and most of the exponent, IEEE 754) that of one which is
        not finite? Such a byte may also belong to a very large number."""
        size = FieldDtype(self.stored.dtype).itemsize
        first = 0 if self.stored.big_endian else size - 1
        for start in range(first, len(self.raw), _CHUNK_BYTES):  # all at once: twice the memory
            highest = self.raw[start : start + _CHUNK_BYTES - first : size]
            if len(highest.translate(None, _NOT_FINITE[size])) != len(highest):
                return False
        return True

    def vectors(self) -> FloatArray:
        """(3, X, Y, Z) in the type they are stored in, in this machine's byte order: a view of the
        one buffer that is ever held. Raises FieldFileError for values that are not finite."""
        import numpy as np  # noqa: PLC0415 - see harness.challenge.field_file.check_field

        stored = self.stored
        dtype = np.dtype(stored.dtype).newbyteorder(">" if stored.big_endian else "<")
        values: FloatArray = np.frombuffer(self.raw, dtype=dtype)
        if not values.dtype.isnative:
            values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
        order: Literal["F", "C"] = "F" if stored.fortran_order else "C"
        if bad := _not_finite(values):
            place = [int(i) for i in np.unravel_index(bad.first, stored.shape, order=order)]
            component = place.pop(0 if self.layout is Layout.CHANNELS_FIRST else -1)
            raise bad.error(f"component {'xyz'[component]} at voxel {tuple(place)}", stored)
        array = values.reshape(stored.shape, order=order)
        return array if self.layout is Layout.CHANNELS_FIRST else np.moveaxis(array, -1, 0)


@dataclass(frozen=True, kw_only=True)
class _NotFinite:
    """Values that are not finite; ``first``: the place of one among all, as they are stored."""

    n_nan: int
    n_infinite: int
    first: int

    def error(self, where: str, stored: StoredArray) -> FieldFileError:
        found, fixes = [], []
        if self.n_nan:
            found.append(f"{_counted(self.n_nan)} NaN")
            fixes.append("look for 0/0, such as the mean over an empty mask")
        if self.n_infinite:
            found.append(f"{_counted(self.n_infinite)} infinite")
            is_half = stored.dtype == FieldDtype.FLOAT16
            too_large = f"float16 holds at most {_FLOAT16_MAX}: are they in voxels?"
            fixes.append(too_large if is_half else "look for a division by 0")
        percent = 100 * (self.n_nan + self.n_infinite) / math.prod(stored.shape)
        return FieldFileError(
            expected="finite displacements",
            found=f"{' and '.join(found)} ({percent:.2g} % of all, the first: {where})",
            problem=FieldProblem.NOT_FINITE,
            fix="; ".join(fixes),
        )


def _counted(number: int) -> str:
    return "1 value that is" if number == 1 else f"{number} values that are"


def read_values(array: OpenArray) -> FieldValues:
    """The values, and then the stream's end.

    Raises FieldFileError where values are missing or left over, and DamagedError where the stream
    does.
    """
    raw = bytearray(array.stored.nbytes)
    n_read = _fill(raw, array.stream)
    rest = array.stream.read(1)
    if n_read != len(raw) or rest:
        raise unreadable(
            expected=f"{len(raw)} bytes of values", found="more" if rest else str(n_read)
        )
    return FieldValues(raw=raw, stored=array.stored, layout=array.layout)


def _fill(raw: bytearray, stream: ByteStream) -> int:
    """Fill the buffer as far as the stream goes; how many bytes that was."""
    n_read = 0
    with memoryview(raw) as buffer:
        while chunk := stream.read(min(_CHUNK_BYTES, len(raw) - n_read)):
            buffer[n_read : n_read + len(chunk)] = chunk
            n_read += len(chunk)
    return n_read


def _not_finite(values: FloatArray) -> _NotFinite | None:
    """Piece by piece: the truth values of all at once would need half the memory of float16."""
    import numpy as np  # noqa: PLC0415 - see harness.challenge.field_file.check_field

    n_nan = n_infinite = 0
    first: int | None = None
    for start in range(0, values.size, _CHECKED_VALUES):
        piece = values[start : start + _CHECKED_VALUES]
        if not _are_finite(piece):
            n_nan += int(np.count_nonzero(np.isnan(piece)))
            n_infinite += int(np.count_nonzero(np.isinf(piece)))
            if first is None:
                first = start + int(np.argmin(np.isfinite(piece)))
    return None if first is None else _NotFinite(n_nan=n_nan, n_infinite=n_infinite, first=first)


def _are_finite(values: FloatArray) -> bool:
    import numpy as np  # noqa: PLC0415 - see harness.challenge.field_file.check_field

    if values.dtype == np.float16:
        # All bits of the exponent are set; NumPy converts each value, 20 times as long.
        exponents = values.view(np.uint16) & np.uint16(_FLOAT16_EXPONENT)
        return not (exponents == _FLOAT16_EXPONENT).any()
    return bool(np.isfinite(values).all())


def shown(text: str) -> str:
    """As much of a file's own text as a message repeats; the caller has made it printable."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."

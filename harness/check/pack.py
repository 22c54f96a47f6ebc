"""The zip that is uploaded: the same fields give the same bytes, whenever and wherever."""

from __future__ import annotations

import os
import stat
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from harness.errors import FieldError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path, PurePosixPath

    from harness.check.source import FieldSource

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_MODE = 0o100644 << 16  # a regular file, readable by all
_UNIX = 3
_DUMMY = b"The site takes no zip without a file at its top level.\n"


def pack(
    source: FieldSource,
    names: Iterable[PurePosixPath],
    target: Path,
    *,
    max_bytes: int,
    dummy_file: str | None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write the fields ``names`` of ``source`` to ``target``, which appears when it is whole.

    Stored, not deflated: fields are compressed already. ``max_bytes``: of one field. What is no
    regular file of at most that is refused, however it was checked: it may have changed since.
    Raises FieldError for such a field and OutputError.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            if dummy_file is not None:
                archive.writestr(_entry(dummy_file), _DUMMY)
            for name in sorted(names):
                with source.file(name) as path, _open(path, name, max_bytes) as field:
                    content = field.read(max_bytes + 1)
                archive.writestr(_entry(str(name)), content)
                on_progress()
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _open(path: Path, name: PurePosixPath, max_bytes: int) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FieldError(f"{name}: cannot be packed ({error.strerror}); is it a link?") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise FieldError(
                f"{name}: cannot be packed: expected a regular file of at most {max_bytes} bytes"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = _UNIX
    entry.external_attr = _MODE
    return entry

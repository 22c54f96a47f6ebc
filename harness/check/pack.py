"""The zip that is uploaded: the same fields give the same bytes, whenever and wherever."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from harness.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path, PurePosixPath

    from harness.check.source import FieldSource

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_MODE = 0o100644 << 16  # a regular file, readable by all
_UNIX = 3
_COPY_BYTES = 1 << 20
_DUMMY = b"The site takes no zip without a file at its top level.\n"


def pack(
    source: FieldSource,
    names: Iterable[PurePosixPath],
    target: Path,
    *,
    dummy_file: str | None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Write the fields ``names`` of ``source`` to ``target``, which appears when it is whole.

    Stored, not deflated: fields are compressed already. Raises OutputError.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            if dummy_file is not None:
                archive.writestr(_entry(dummy_file), _DUMMY)
            for name in sorted(names):
                with source.file(name) as path, path.open("rb") as field:
                    entry = _entry(str(name))
                    entry.file_size = path.stat().st_size
                    with archive.open(entry, "w") as member:
                        shutil.copyfileobj(field, member, _COPY_BYTES)
                on_progress()
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = _UNIX
    entry.external_attr = _MODE
    return entry

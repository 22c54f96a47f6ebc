"""The fields that are valid, held against the images of their pairs."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from nibabel.filebasedimages import ImageFileError

from harness.challenge.field_file import FieldState, read_field
from harness.check.meaning import PairToExamine, examine_task
from harness.errors import DataError
from harness.runner.plugin import LazyImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from harness.challenge.pairs import Pair, TaskPairs
    from harness.check.findings import Finding
    from harness.check.report import CheckedPair
    from harness.check.source import FieldSource

_FIXED_MASK = "fixed_mask"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FieldsInImages:
    """The valid fields of ``source`` and the images below ``data_dir``."""

    source: FieldSource
    data_dir: Path
    checked: Sequence[CheckedPair]
    on_progress: Callable[[str], None]

    def examine(self, found: TaskPairs) -> tuple[Finding, ...]:
        """What the fields of a task seem to mean, pair by pair, on the evidence of them all.

        Raises DataError for an image that is damaged.
        """
        return examine_task(self._pairs(found)).findings

    def _pairs(self, found: TaskPairs) -> Iterator[PairToExamine]:
        """One at a time: a pair takes hundreds of megabytes."""
        valid = {one.key: one for one in self.checked if one.state is FieldState.VALID}
        for pair in found.pairs:
            path = valid[pair.key].path if pair.key in valid else None
            if path is None:
                self.on_progress(pair.key)
                continue
            with self.source.file(PurePosixPath(path)) as file:
                vectors_vox = read_field(file, found.task.field)
            masks = [place for role, place in pair.auxiliary if role == _FIXED_MASK]
            yield PairToExamine(
                pair=pair.key,
                vectors_vox=vectors_vox,
                fixed=self._image(pair, pair.fixed),
                moving=self._image(pair, pair.moving),
                fixed_mask=self._image(pair, masks[0]) if masks else None,
            )
            self.on_progress(pair.key)

    def _image(self, pair: Pair, place: PurePosixPath) -> LazyImage:
        image = LazyImage(self.data_dir / place)
        try:
            _check_sum(image.path)
            _ = image.array
        except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
            raise DataError(
                f"{place}, an image of {pair.key}: cannot be read ({error}); unpack the data again"
            ) from error
        return image


def _check_sum(path: Path) -> None:
    """Read a compressed file to its end, where its check sum is: NiBabel stops before that, and a
    damaged image would speak against a field. Raises OSError, EOFError or zlib.error."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            while file.read(_CHUNK_BYTES):
                continue

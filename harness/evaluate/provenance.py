"""Which images a truth folder belongs to: nobody is told figures from somebody else's labels."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from harness.challenge.model import TRUTH_DIGESTS_FILE
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def check_images_match(truth_folder: Path, images: Iterable[Path]) -> None:
    """Raises DataError when the truth folder names other content for one of the images.

    A folder without digests, or without this image's, says nothing and is taken as it is.
    """
    try:
        lines = (truth_folder / TRUTH_DIGESTS_FILE).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for image in images:
        expected = known.get(image.name)
        if expected is not None and expected != file_digest(image):
            raise DataError(
                f"{truth_folder} belongs to another {image.name} than {image}; put the truth of "
                "these images there, or delete it"
            )


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

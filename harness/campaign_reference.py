"""The reference image of a campaign, whose runs tell whether the machine is as fast as it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness import console
from harness.campaign.order import Source
from harness.campaign.policy import Calibration
from harness.campaign.upload import UploadKind
from harness.cli_import import image_to_run
from harness.engine.absent import AbsentEngine
from harness.engine.base import EngineName
from harness.errors import BaseImageUnavailable, CampaignError
from harness.live import BuildLog
from harness.text import harmless_line

if TYPE_CHECKING:
    from harness.campaign.policy import Policy
    from harness.engine.base import Engine

_CALIBRATION_TAG = "l2r-campaign/calibration"


def reference_image(policy: Policy, engine: Engine, base_image: str | None) -> Source | None:
    """What calibrations run; None, and said aloud, where there is none. Raises CampaignError,
    BaseImageUnavailable and what building or finding an image raises."""
    named = policy.calibration.source
    if named is None:
        console.note("no calibration: the campaign's file asks for none, so drift is not told")
        return None
    folder = Path(named)
    if folder.is_dir():
        return _of_folder(folder, engine, base_image)
    if engine.info.name is EngineName.PROCESS:
        raise CampaignError(
            f"calibration: source {named}: expected a folder with a method, as the process engine "
            "runs no images, found none"
        )
    if folder.is_file() and isinstance(engine, AbsentEngine):  # the workers have one
        return _of_file(folder)
    image = image_to_run(engine, named)
    return Source(
        kind=UploadKind.IMAGE, sha256=image.id, entry=harmless_line(named, 200), reference=named
    )


def _of_file(path: Path) -> Source:
    """Imported where it is run."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CampaignError(f"calibration: source {path}: {error.strerror}") from error
    return Source(
        kind=UploadKind.ARCHIVE,
        sha256=f"sha256:{digest}",
        entry=harmless_line(path.name, 200),
        path=path.resolve(),
        size_bytes=size_bytes,
    )


def _of_folder(folder: Path, engine: Engine, base_image: str | None) -> Source | None:
    is_process = engine.info.name is EngineName.PROCESS
    sign = "method/method.py" if is_process else "Dockerfile"
    if not (folder / sign).is_file():
        if str(folder) == Calibration().source:
            console.warn(
                f"no calibration: there is no {sign} in this folder, so whether the machine gets "
                "slower meanwhile cannot be told; start in the folder of the reference method, or "
                "name it in the campaign's file (calibration: source)"
            )
            return None
        raise CampaignError(f"calibration: source {folder}: expected a {sign} in it, found none")
    try:
        image = engine.build(
            folder, tag=_CALIBRATION_TAG, base_image=base_image, on_output=BuildLog().add
        )
    except BaseImageUnavailable as error:
        raise BaseImageUnavailable(
            f"the reference image for calibrations: {error}\nor leave it out, with `calibration: "
            "{source: null}` in the campaign's file"
        ) from error
    if is_process:
        return Source(
            kind=UploadKind.FOLDER, sha256=image.id, entry="reference", path=folder.resolve()
        )
    return Source(
        kind=UploadKind.IMAGE, sha256=image.id, entry="reference", reference=_CALIBRATION_TAG
    )


def with_reference(policy: Policy, source: Source | None) -> Policy:
    """The policy as it can be kept."""
    if source is not None or policy.calibration.source is None:
        return policy
    calibration = policy.calibration.model_copy(update={"source": None})
    return policy.model_copy(update={"calibration": calibration})

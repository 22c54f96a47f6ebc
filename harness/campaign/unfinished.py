"""A run directory in which nothing came to an end: what we made in it is removed, and only that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.store import RunDirectory

_log = logging.getLogger(__name__)


def remove_unfinished(run_dir: RunDirectory) -> bool:
    """Whether it is gone. A run that had started stays as it is, for it can be finished, and so
    does what is no work of ours. Raises OutputError when it cannot be looked at."""
    if not run_dir.path.is_dir():
        return True
    if any(path.exists() for path in _results(run_dir)):
        return False
    try:
        strange = {path.name for path in run_dir.path.iterdir()} - _names(run_dir)
        if strange:
            _log.warning("%s: left alone, as %s is in it", run_dir.path, sorted(strange)[0])
            return False
        run_dir.discard_output()
        _remove_fields(run_dir.fields_dir)
        for path in run_dir.path.iterdir():
            if not path.is_dir():
                path.unlink()
        run_dir.path.rmdir()
    except OSError as error:
        raise OutputError(f"{error.filename or run_dir.path}: {error.strerror}") from error
    return True


def _results(run_dir: RunDirectory) -> tuple[Path, ...]:
    return (
        run_dir.record_path,
        run_dir.fields_record_path,
        run_dir.refused_path,
        run_dir.started_path,
    )


def _names(run_dir: RunDirectory) -> set[str]:
    """Of all that is made before a run has started or fields are recorded."""
    parts = (path.with_suffix(".part") for path in _results(run_dir))
    made = (
        run_dir.output_dir,
        run_dir.fields_dir,
        run_dir.reserve_path,
        run_dir.growing_trace,
        run_dir.log_path,
        *parts,
    )
    return {path.name for path in made}


def _remove_fields(folder: Path) -> None:
    """Copies of our own, of fields that were handed in."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()

"""What a worker does with one job. Whatever goes wrong is an outcome; nothing is raised."""

from __future__ import annotations

import hashlib
import logging
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness import __version__, evaluate
from harness.challenge.field_file import max_file_bytes
from harness.check.source import open_source
from harness.errors import DataError, FieldError, HarnessError
from harness.evaluate.provenance import file_digest
from harness.evaluate.record import CaseRecord, CaseState
from harness.evaluate.truth import read_spacing_mm
from harness.scoring.job import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from harness.check.source import FieldSource
    from harness.scoring.job import FieldPlace, Job, SourceSpec

_Identity = tuple[str, int, int]

_logger = logging.getLogger(__name__)


class Scorer:
    """Scores one job after the other. Keeps the last source open, and digests of truth files.

    ``on_compilation`` is called before the first job that needs code compiled that is not on disk.
    """

    def __init__(self, on_compilation: Callable[[], None] = lambda: None) -> None:
        self._on_compilation = on_compilation
        self._stack = ExitStack()
        self._open: tuple[_Identity, FieldSource] | None = None
        self._digests: dict[_Identity, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def score(self, job: Job) -> Outcome:
        try:
            if job.field is None:
                return self._score(job, None)
            with self._source(job.field.source).file(job.field.name) as path:
                return self._score(job, path)
        except FieldError as error:
            return Outcome(record=_invalid(job, str(error)))
        except HarnessError as error:
            return _not_evaluated(job, str(error), error.exit_code)
        except Exception as error:  # one case must not end the others
            _logger.exception("%s %s", job.rules.name, job.case.key)
            return _not_evaluated(job, f"{type(error).__name__}: {error}", HarnessError.exit_code)

    def _score(self, job: Job, path: Path | None) -> Outcome:
        field_sha256 = None
        if path is not None and job.field is not None:
            field_sha256 = _field_digest(path, job, job.field)
        digest = self._inputs_digest(job, field_sha256)
        known = job.known
        if known is not None and digest is not None and known.inputs_digest == digest:
            return Outcome(record=known, reused=True)
        identity = {"field_sha256": field_sha256, "inputs_digest": digest}
        # Here, as they bring Numba along: what is known already needs none of it.
        from harness.evaluate.case import score_case  # noqa: PLC0415
        from harness.evaluate.field_input import read_volumes  # noqa: PLC0415
        from harness.evaluate.kernels.compiled import on_compilation  # noqa: PLC0415

        with on_compilation(self._on_compilation):
            try:
                volumes = None
                if path is not None and job.field is not None:
                    volumes = read_volumes(path, job.rules.spec_of(job.field.name), job.rules)
                record = score_case(job.rules, job.case, volumes, extras=job.extras)
            except FieldError as error:
                return Outcome(record=_invalid(job, str(error)).model_copy(update=identity))
        name = None if job.field is None else str(job.field.name)
        return Outcome(record=record.model_copy(update={**identity, "field": name}))

    def _source(self, spec: SourceSpec) -> FieldSource:
        key = _identity(spec.path)
        if self._open is None or self._open[0] != key:
            self._open = None
            self._stack.close()
            self._stack = ExitStack()
            opened = self._stack.enter_context(open_source(spec.path, spec.runs_dir, spec.tasks))
            self._open = key, opened
        return self._open[1]

    def _inputs_digest(self, job: Job, field_sha256: str | None) -> str | None:
        """Of all that the values depend on; None for a file too large to be looked at.

        Raises DataError for truth that is not there.
        """
        if job.field is not None and field_sha256 is None:
            return None
        truth = job.case.truth
        files = [truth.fixed_labels, truth.moving_labels, truth.mask]
        files += [path for two in truth.landmarks for path in (two.fixed, two.moving)]
        spacing = read_spacing_mm(truth.moving_images) if truth.landmarks else None
        parts = [
            *(__version__, _code_digest(), job.rules.digest, job.case.key),
            f"extras {job.extras}",
            f"field {field_sha256}",
            *(f"truth {self._truth_digest(path)}" for path in files if path is not None),
            *(two.method for two in truth.landmarks),
            f"spacing {spacing}",
        ]
        return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _truth_digest(self, path: Path) -> str | None:
        try:
            status = path.stat()
            key = (str(path), status.st_size, status.st_mtime_ns)
            if key not in self._digests:
                self._digests[key] = file_digest(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        return self._digests[key]


def _identity(path: Path) -> _Identity:
    """What tells a file or folder from another that has come into its place."""
    try:
        status = path.stat()
    except OSError:  # the id of a dry run; one that is gone is for open_source to tell
        return str(path), 0, 0
    return str(path), status.st_ino, status.st_mtime_ns


@cache
def _code_digest() -> str:
    """Of the code that makes numbers: a version that is being worked on keeps its name."""
    folder = Path(evaluate.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _field_digest(path: Path, job: Job, field: FieldPlace) -> str | None:
    """SHA-256; None for what no field can be, which :func:`read_volumes` then refuses."""
    limit = max_file_bytes(job.rules.spec_of(field.name))
    if path.is_symlink() or not path.is_file() or path.stat().st_size > limit:
        return None
    try:
        return "sha256:" + file_digest(path)
    except OSError as error:
        raise FieldError(f"cannot be read ({error.strerror})") from error


def _invalid(job: Job, reason: str) -> CaseRecord:
    name = None if job.field is None else str(job.field.name)
    return CaseRecord(key=job.case.key, state=CaseState.INVALID, reason=reason, field=name)


def _not_evaluated(job: Job, reason: str, exit_code: int) -> Outcome:
    name = None if job.field is None else str(job.field.name)
    record = CaseRecord(key=job.case.key, state=CaseState.NOT_EVALUATED, reason=reason, field=name)
    return Outcome(record=record, exit_code=exit_code)

"""One attempt by the job function: the process engine, real child processes, real files."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness import __version__
from harness.campaign.conditions import Conditions
from harness.campaign.job import perform
from harness.campaign.order import AttemptKind, JobOrder, KnownRun, Outcome, Place, Source
from harness.campaign.policy import Exclusive
from harness.campaign.site import Site
from harness.campaign.upload import UploadKind
from harness.challenge.field_file import FieldState
from harness.challenge.pairs import read_pairs
from harness.check.source import find_run, open_source
from harness.data_lock import shared
from harness.engine.base import Isolation
from harness.engine.owner import Owner
from harness.engine.process import ProcessEngine, method_digest
from harness.errors import Blame, EngineUnreachable, MachineBusy, OutputError
from harness.execute import Step, execute
from harness.plan import Plan
from harness.store import RunDirectory, RunStatus
from tests.tiny import YAML, ZERO, tiny_challenge, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.campaign.crew import Progressed
    from harness.challenge.model import Challenge
    from harness.challenge.pairs import TaskPairs

CHALLENGE = tiny_challenge()
PAIRS = ["task_01/0001_0001", "task_01/0002_0002", "task_02/0007_0008", "task_02/0008_0009"]


def data_digest(data_dir: Path, tasks: Sequence[TaskPairs]) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for one in tasks for pair in one.pairs for path in pair.inputs}):
        digest.update((data_dir / path).read_bytes())
    return f"sha256:{digest.hexdigest()}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    write_data(tmp_path / "test")
    return Site(
        place=Place(name="here", machine="here"),
        runs_dir=tmp_path / "runs",
        data_dir=tmp_path / "test",
        engine=ProcessEngine(),
        data_digest=data_digest,
        lock_dir=tmp_path / "locks",
    )


def conditions(site: Site, challenge: Challenge = CHALLENGE) -> Conditions:
    return Conditions(
        harness_version=__version__,
        challenge=challenge.name,
        challenge_digest=challenge.digest,
        limits=challenge.limits,
        data_digest=data_digest(site.data_dir, read_pairs(challenge, site.data_dir)),
        engine=site.engine.info.name,
    )


def order(
    site: Site, source: Source, challenge: Challenge = CHALLENGE, **changes: object
) -> JobOrder:
    made = JobOrder(
        kind=AttemptKind.SUBMISSION,
        team="team",
        run_id="20260101-000000",
        source=source,
        conditions=conditions(site, challenge),
        challenge=challenge,
        challenge_text=YAML,
    )
    return made.model_copy(update=changes)


def folder(tmp_path: Path, body: str) -> Source:
    path = write_method(tmp_path / "upload", body)
    digest = method_digest(path / "method")
    return Source(kind=UploadKind.FOLDER, sha256=digest, entry="team", path=path)


def test_good_submission(tmp_path: Path, site: Site) -> None:
    seen: list[Progressed] = []
    end = perform(order(site, folder(tmp_path, ZERO)), site, seen.append)
    run_dir = RunDirectory(site.runs_dir / "team/20260101-000000")
    record = run_dir.read_record()
    assert end.outcome is Outcome.RAN
    assert end.status is record.status is RunStatus.SUCCEEDED
    assert (end.exit_code, end.blame, end.is_timed, end.recovered) == (0, None, True, False)
    assert (end.valid_fields, end.expected_fields) == (4, 4)
    assert end.runtimes_s == {pair.key: pair.runtime_s for pair in record.pairs}
    assert sorted(end.runtimes_s) == PAIRS
    assert end.image_id == record.image_id
    assert end.machine_digest == record.machine_digest
    digest = hashlib.sha256(run_dir.record_path.read_bytes()).hexdigest()
    assert end.record_sha256 == f"sha256:{digest}"
    assert {path.name for path in run_dir.path.iterdir()} == {
        *("fields", "log.txt", "run.json", "trace.jsonl.gz")
    }
    fields = [p.progress for p in seen if p.progress and p.progress.step is Step.FIELD_WRITTEN]
    assert [one.done for one in fields] == [1, 2, 3, 4]
    assert {(one.team, one.run_id) for one in seen} == {("team", "20260101-000000")}


def test_crash_is_a_result(tmp_path: Path, site: Site) -> None:
    body = f"if pair.fixed_id == 2:\n    os._exit(7)\n{ZERO}"
    end = perform(order(site, folder(tmp_path, body)), site)
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.CRASHED)
    assert (end.blame, end.exit_code, end.is_final) == (Blame.SUBMISSION, 41, True)
    assert (end.valid_fields, end.expected_fields) == (1, 4)
    assert list(end.runtimes_s) == PAIRS[:1]


def test_only_the_tasks_it_takes_part_in(tmp_path: Path, site: Site) -> None:
    end = perform(order(site, folder(tmp_path, ZERO), tasks=("task_02",)), site)
    assert sorted(end.runtimes_s) == PAIRS[2:]
    none = order(site, folder(tmp_path, ZERO), tasks=("task_09",), run_id="second")
    end = perform(none, site)
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
    assert "takes part in task_09" in end.reason


def test_image_that_has_a_finished_run_is_not_run_again(tmp_path: Path, site: Site) -> None:
    source = folder(tmp_path, ZERO)
    known = KnownRun(image_id=source.sha256, run_id="20251231-000000")
    end = perform(order(site, source, known=(known,)), site)
    assert (end.outcome, end.same_as) == (Outcome.SAME, "20251231-000000")
    assert end.image_id == source.sha256
    assert not site.runs_dir.joinpath("team").exists()


def test_upload_that_cannot_be_built_is_refused(tmp_path: Path, site: Site) -> None:
    (tmp_path / "empty").mkdir()
    digest = f"sha256:{'0' * 64}"
    source = Source(
        kind=UploadKind.FOLDER, sha256=digest, entry="em\x1b[2Jpty", path=tmp_path / "empty"
    )
    end = perform(order(site, source), site)
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.REFUSED, Blame.SUBMISSION, 22)
    run_dir = RunDirectory(site.runs_dir / "team/20260101-000000")
    assert [path.name for path in run_dir.path.iterdir()] == ["refused.json"]
    record = run_dir.read_refusal()
    assert (record.error, record.exit_code) == ("BuildError", 22)
    assert record.reason == end.reason
    assert "found neither" in record.reason
    assert (record.entry, record.source_sha256) == ("em\N{REPLACEMENT CHARACTER}[2Jpty", digest)
    assert find_run(run_dir.path, site.runs_dir) is None


def test_folder_that_changed_since_it_was_taken_up(tmp_path: Path, site: Site) -> None:
    """While a team copies a new one over it, what cannot be built is not the team's fault."""
    careful = replace(site, folder_digest=lambda path: method_digest(path / "method"))
    source = folder(tmp_path, ZERO)
    assert perform(order(careful, source), careful).outcome is Outcome.RAN
    method = tmp_path / "upload/method/method.py"
    method.write_text("# another\n")
    for run_id in ("changed", "gone"):
        end = perform(order(careful, source, run_id=run_id), careful)
        assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
        assert "expected what was taken up" in end.reason
        method.unlink(missing_ok=True)
    assert [path.name for path in (site.runs_dir / "team").iterdir()] == ["20260101-000000"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"harness_version": "0.0.1"}, "harness: expected 0.0.1"),
        ({"challenge_digest": f"sha256:{'1' * 64}"}, "challenge: expected sha256:111"),
        ({"data_digest": f"sha256:{'2' * 64}"}, "copy it anew"),
        ({"engine": "docker"}, "engine: expected docker"),
        ({"isolation": Isolation(read_only_root=True)}, "--read-only-root"),
    ],
)
def test_other_conditions_than_the_campaign_s_are_the_organiser_s(
    tmp_path: Path, site: Site, changes: dict[str, object], told: str
) -> None:
    asked = conditions(site).model_copy(update=changes)
    end = perform(order(site, folder(tmp_path, ZERO), conditions=asked), site)
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
    assert told in end.reason
    assert not (site.runs_dir / "team").exists()


class UnreachableEngine(ProcessEngine):
    """A daemon that goes away before the run."""

    def sweep(self) -> tuple[str, ...]:
        raise EngineUnreachable("the engine does not answer")


class BuggyEngine(ProcessEngine):
    def image_facts(self, image: object) -> None:
        raise ZeroDivisionError(str(image))


class CrowdedEngine(ProcessEngine):
    """It could not remove what an earlier attempt of this process started."""

    def left_of(self, owner: Owner) -> tuple[str, ...]:
        return ("l2r-team-before",) if owner == Owner.current() else ()


def test_nothing_is_timed_beside_what_an_earlier_attempt_left(tmp_path: Path, site: Site) -> None:
    crowded = replace(site, engine=CrowdedEngine())
    end = perform(order(site, folder(tmp_path, ZERO)), crowded)
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.FAILED, Blame.MACHINE, 30)
    assert "l2r-team-before" in end.reason
    assert not (site.runs_dir / "team").exists()


def test_data_that_somebody_has_open_is_tried_again(tmp_path: Path, site: Site) -> None:
    with shared(site.data_dir):
        end = perform(order(site, folder(tmp_path, ZERO)), site)
    assert (end.outcome, end.blame, end.is_final) == (Outcome.FAILED, Blame.MACHINE, False)
    assert "reading it" in end.reason
    assert list((site.runs_dir / "team").iterdir()) == []


def test_gpu_is_told_to_the_method(tmp_path: Path, site: Site) -> None:
    """Recorded, too; whether it is empty is another question, which needs one."""
    seen = tmp_path / "seen"
    body = f"open({str(seen)!r}, 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n{ZERO}"
    image = site.engine.build(write_method(tmp_path / "upload", body), tag="x")
    plan = Plan(
        challenge=CHALLENGE,
        challenge_file=write_challenge(tmp_path / "tiny.yaml"),
        data_dir=site.data_dir,
        tasks=read_pairs(CHALLENGE, site.data_dir),
        image=image,
        submission="team",
        gpus=("GPU-1",),
    )
    record = execute(plan, site.engine, RunDirectory.create(site.runs_dir, "team"))
    assert record.status is RunStatus.SUCCEEDED
    assert (record.gpu, seen.read_text()) == ("GPU-1", "GPU-1")


@pytest.mark.parametrize("exclusive", Exclusive)
def test_order_says_what_the_run_has_for_itself(
    tmp_path: Path, site: Site, exclusive: Exclusive
) -> None:
    """A worker of a cluster had an option for it, which had to be what the campaign's file says."""
    place = Place(name="here", machine="here", gpu="GPU-none")
    asked = order(site, folder(tmp_path, ZERO), gpu="GPU-none", exclusive=exclusive)
    beside: list[bool] = []

    def tell(seen: Progressed) -> None:
        if seen.doing != "waiting for an empty GPU":
            return
        try:
            with site.lock.timed("another", exclusive=Exclusive.GPU, gpu="GPU-2", patience_s=0.0):
                beside.append(True)
        except MachineBusy:
            beside.append(False)

    perform(asked, replace(site, place=place), tell)
    assert beside == [exclusive is Exclusive.GPU]


def test_gpu_that_is_not_here_fails_the_attempt(tmp_path: Path, site: Site) -> None:
    place = Place(name="here", machine="here", gpu="GPU-none")
    asked = order(site, folder(tmp_path, ZERO), gpu="GPU-none")
    end = perform(asked, replace(site, place=place))
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.MACHINE)
    assert "no such GPU" in end.reason
    other = perform(asked, site)
    assert (other.outcome, other.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
    assert not (site.runs_dir / "team").exists()


def test_engine_that_is_gone_stops_the_campaign(tmp_path: Path, site: Site) -> None:
    gone = replace(site, engine=UnreachableEngine())
    with pytest.raises(EngineUnreachable):
        perform(order(site, folder(tmp_path, ZERO)), gone)
    assert not (site.runs_dir / "team").exists()


def test_our_own_fault_is_one_attempt_s(
    tmp_path: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    end = perform(order(site, folder(tmp_path, ZERO)), replace(site, engine=BuggyEngine()))
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.FAILED, Blame.MACHINE, 1)
    assert "ZeroDivisionError" in end.reason
    assert "ZeroDivisionError" in caplog.text


def test_fault_of_ours_in_the_middle_of_a_run_keeps_what_it_finished(
    tmp_path: Path, site: Site
) -> None:
    def fail(progress: Progressed) -> None:
        if progress.progress is not None and progress.progress.step is Step.COLLECTING:
            raise ZeroDivisionError

    end = perform(order(site, folder(tmp_path, ZERO)), site, fail)
    assert (end.outcome, end.status, end.recovered) == (Outcome.RAN, RunStatus.INTERRUPTED, True)
    assert (end.blame, end.valid_fields, end.is_timed) == (Blame.MACHINE, 4, False)
    assert end.runtimes_s == {}


def test_directory_that_is_there_is_not_written_to(tmp_path: Path, site: Site) -> None:
    there = RunDirectory.make(site.runs_dir, "team", "20260101-000000")
    with pytest.raises(OutputError, match="File exists"):
        perform(order(site, folder(tmp_path, ZERO)), site)
    assert list(there.path.iterdir()) == []


def fields_zip(path: Path, *, n: int = 4, bad: bool = False) -> Source:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.txt", "ours")
        for key in PAIRS[:n]:
            task, _, case = key.partition("/")
            field = np.full((3, 8, 6, 10), np.nan if bad and key == PAIRS[0] else 0, np.float16)
            part = path.with_suffix(".npz")
            np.savez_compressed(part, field)
            archive.write(part, f"{task}/disp_{case}.npz")
            part.unlink()
    return zip_source(path)


def zip_source(path: Path) -> Source:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(kind=UploadKind.FIELDS, sha256=f"sha256:{digest}", entry="team.zip", path=path)


def test_fields_are_stored_and_never_run(tmp_path: Path, site: Site) -> None:
    end = perform(order(site, fields_zip(tmp_path / "up.zip")), site)
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.FIELDS, None, 0)
    assert (end.valid_fields, end.expected_fields, end.is_timed) == (4, 4, False)
    run_dir = RunDirectory(site.runs_dir / "team/20260101-000000")
    assert {path.name for path in run_dir.path.iterdir()} == {"fields", "fields.json"}
    record = run_dir.read_fields_record()
    assert [pair.key for pair in record.pairs] == PAIRS
    assert all(pair.runtime_s is None for pair in record.pairs)
    for pair in record.pairs:
        stored = run_dir.fields_dir / str(pair.field_path)
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == pair.field_sha256
    found = find_run(run_dir.path, site.runs_dir)
    assert found is not None
    assert found.read_challenge_name() == "tiny"
    with open_source(run_dir.path, site.runs_dir, ()) as source:
        assert len(source.names) == 4


def test_fields_that_are_not_all_good(tmp_path: Path, site: Site) -> None:
    end = perform(order(site, fields_zip(tmp_path / "up.zip", n=3, bad=True)), site)
    assert (end.outcome, end.blame, end.exit_code) == (Outcome.FIELDS, Blame.SUBMISSION, 21)
    assert (end.valid_fields, end.expected_fields) == (2, 4)
    record = RunDirectory(site.runs_dir / "team/20260101-000000").read_fields_record()
    assert [pair.field_state for pair in record.pairs] == [
        *(FieldState.INVALID, FieldState.VALID, FieldState.VALID, FieldState.MISSING)
    ]
    assert {one.kind for one in record.findings} == {"not_finite", "missing"}


def test_zip_that_cannot_be_read_is_refused(tmp_path: Path, site: Site) -> None:
    path = tmp_path / "up.zip"
    path.write_bytes(b"no zip at all")
    end = perform(order(site, zip_source(path)), site)
    assert (end.outcome, end.exit_code) == (Outcome.REFUSED, 21)
    run_dir = RunDirectory(site.runs_dir / "team/20260101-000000")
    assert [one.name for one in run_dir.path.iterdir()] == ["refused.json"]


def test_zip_that_changed_since_it_was_taken_up(tmp_path: Path, site: Site) -> None:
    source = fields_zip(tmp_path / "up.zip")
    fields_zip(tmp_path / "up.zip", n=2)
    end = perform(order(site, source), site)
    assert (end.outcome, end.blame) == (Outcome.FAILED, Blame.CONFIGURATION)
    assert not (site.runs_dir / "team").exists()

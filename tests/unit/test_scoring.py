"""Many cases: worker processes that die, journals that go on, submissions that lack something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, FieldError, Interrupted, OutputError
from harness.evaluate.record import CaseState, EvaluationRecord
from harness.scoring.capacity import workers_that_fit
from harness.scoring.cases import cases_of_config
from harness.scoring.evaluate import ZeroFields, check_truth, evaluate_source
from harness.scoring.job import Job
from harness.scoring.journal import open_journal
from harness.scoring.pool import Pool
from harness.scoring.source import look_at_source
from tests.evaluation_data import config, write_config, write_field, write_labels, write_truth
from tests.unit.test_start import has_ended

if TYPE_CHECKING:
    from harness.scoring.evaluate import Evaluated

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """Truth of two cases, and fields that are exactly right."""
    write_truth(tmp_path / "gt", tre=True)
    write_config(tmp_path / "config.json", config(tre=True))
    for case in (1, 2):
        write_field(tmp_path / f"fields/disp_{case:04d}_{case:04d}.npz")
    return tmp_path


def evaluate(
    team: Path, pool: Pool, *, initial: bool = False, extras: bool = False, journal: str = "cases"
) -> Evaluated:
    rulebook, cases = cases_of_config(
        team / "config.json", team / "gt", extras=extras, initial=initial
    )
    source = look_at_source(team / "fields", (cases,), team / "runs", all_tasks=True)
    check_truth(source.attempted)
    zero = ZeroFields(team / "initial.jsonl")
    return evaluate_source(source, rulebook, team / f"{journal}.jsonl", pool=pool, zero=zero)


def states(record: EvaluationRecord) -> list[CaseState]:
    return [case.state for case in record.tasks["Tiny"].detail.cases.values()]


class TestValues:
    def test_right_fields_and_the_zero_field(self, team: Path, pool: Pool) -> None:
        """Two voxels along x, of 1.5 mm: what the fields undo and the zero field does not."""
        task = evaluate(team, pool, initial=True).record.tasks["Tiny"]
        aggregates, initial = task.aggregates, task.detail.initial
        assert (aggregates["DSC"].mean, aggregates["HD95"].mean) == (1.0, 0.0)
        assert aggregates["TRE_lm"].mean == 0.0
        assert aggregates["LogJacDetStd"].mean == pytest.approx(0, abs=1e-12)
        assert initial["TRE_lm"].mean == pytest.approx(3.0)
        # Boxes of 6 and of 4 voxels, of which 4 and 2 are shared.
        assert initial["DSC"].mean == pytest.approx((4 / 6 + 2 / 4) / 2)
        assert task.detail.cases["0001_0000<--0001_0001"].labels["DSC"] == (1, 2)

    def test_extras_are_beside_the_official_shape(self, team: Path, pool: Pool) -> None:
        task = evaluate(team, pool, extras=True).record.tasks["Tiny"]
        assert set(task.detail.extras) == {"hd95_mm", "mean_surface_distance_mm", "ndv_percent"}
        assert all(value.mean == 0 for value in task.detail.extras.values())
        assert set(task.aggregates) == {"LogJacDetStd", "DSC", "HD95", "TRE_lm"}

    def test_folding_is_counted(self, team: Path, pool: Pool) -> None:
        """The official count is made after a clip, and is 0 whatever the field."""
        field = np.zeros((16, 12, 20, 3), np.float32)
        field[..., 0] = -2 * np.arange(16)[:, None, None]  # x goes to -x: all is turned over
        np.savez_compressed(team / "fields/disp_0001_0001.npz", field)
        task = evaluate(team, pool).record.tasks["Tiny"]
        case = task.cases["0001_0000<--0001_0001"]
        assert case["num_foldings"].mean == 12 * 8 * 16  # two voxels of each side are left out
        jacobian = task.detail.cases["0001_0000<--0001_0001"].jacobian
        assert jacobian is not None
        assert (jacobian.folded_percent, jacobian.minimum, jacobian.maximum) == (100, -1, -1)

    def test_label_that_vanished_is_infinite_and_not_absent(self, team: Path, pool: Pool) -> None:
        write_field(team / "fields/disp_0002_0002.npz", (40, 0, 0))
        record = evaluate(team, pool).record
        text = record.model_dump_json()
        assert "NaN" not in text
        content = json.loads(text, parse_constant=pytest.fail)
        case = content["tasks"]["Tiny"]["cases"]["0002_0000<--0002_0001"]
        assert case["HD95"] == {"mean": "Infinity", "detailed": ["Infinity", "Infinity"]}
        assert content["tasks"]["Tiny"]["aggregates"]["HD95"]["mean"] == "Infinity"
        assert content["tasks"]["Tiny"]["aggregates"]["HD95"]["std"] is None
        assert EvaluationRecord.model_validate_json(text) == record


class TestSubmissions:
    def test_missing_and_invalid_fields_do_not_stop_the_others(
        self, team: Path, pool: Pool
    ) -> None:
        (team / "fields/disp_0001_0001.npz").write_bytes(b"PK\3\4 not much of a zip")
        found = evaluate(team, pool)
        assert states(found.record) == [CaseState.INVALID, CaseState.SCORED]
        assert found.exit_code == 0
        (team / "fields/disp_0001_0001.npz").unlink()
        record = evaluate(team, pool).record
        assert states(record) == [CaseState.MISSING, CaseState.SCORED]
        task = record.tasks["Tiny"]
        assert (task.detail.scored, task.detail.expected) == (1, 2)
        assert task.cases["0001_0000<--0001_0001"]["DSC"].mean is None
        assert task.aggregates["DSC"].mean == 1.0

    def test_zip(self, team: Path, pool: Pool) -> None:
        plain = evaluate(team, pool).record
        with zipfile.ZipFile(team / "upload.zip", "w") as archive:
            for path in (team / "fields").iterdir():
                archive.write(path, path.name)
                path.unlink()
        (team / "fields").rmdir()
        (team / "upload.zip").rename(team / "fields")
        zipped = evaluate(team, pool).record
        assert zipped.tasks == plain.tasks

    def test_damaged_zip_says_so(self, team: Path, pool: Pool) -> None:
        for path in (team / "fields").iterdir():
            path.unlink()
        (team / "fields").rmdir()
        (team / "fields").write_text("no zip")
        record = evaluate(team, pool).record
        assert "expected a zip file" in record.problems[0]
        assert states(record) == [CaseState.MISSING] * 2

    def test_smoothness_does_not_vanish_from_the_mean(self, team: Path, pool: Pool) -> None:
        """One voxel so far away that SDlogJ is not a number would leave a rough case out of it."""
        field = np.zeros((16, 12, 20, 3))
        field[5, 5, 5] = 1e300  # infinite in float32, which the metrics are computed in
        np.savez_compressed(team / "fields/disp_0001_0001.npz", field)
        found = evaluate(team, pool)
        assert states(found.record) == [CaseState.INVALID, CaseState.SCORED]
        assert "determinant" in str(found.record.tasks["Tiny"].detail.cases)
        assert evaluate(team, pool).reused == 2

    def test_link_out_of_the_folder_is_not_followed(self, team: Path, pool: Pool) -> None:
        secret = team / "gt/secret.npz"
        (team / "fields/disp_0001_0001.npz").rename(secret)
        (team / "fields/disp_0001_0001.npz").symlink_to(secret)
        record = evaluate(team, pool).record
        assert states(record) == [CaseState.INVALID, CaseState.SCORED]


class TestTruth:
    def test_every_problem_is_told_before_anything_is_scored(self, team: Path) -> None:
        write_labels(team / "gt/labelsTs/X_0001_0001.nii.gz", grid=(16, 12, 18))
        (team / "gt/labelsTs/X_0002_0000.nii.gz").unlink()
        (team / "gt/landmarksTs/X_0002_0001.csv").write_text("1,2,3\n")
        _, cases = cases_of_config(team / "config.json", team / "gt", extras=False, initial=False)
        with pytest.raises(DataError) as caught:
            check_truth((cases,))
        labels, missing, landmarks = caught.value.findings
        assert labels.endswith(
            "X_0001_0001.nii.gz: expected the images' grid (16, 12, 20), found (16, 12, 18)"
        )
        assert "X_0002_0000.nii.gz: expected a NIfTI file, found no file" in missing
        assert "X_0002_0001.csv: expected 2 rows as in" in landmarks

    def test_what_only_shows_when_it_is_read(self, team: Path, pool: Pool) -> None:
        """Its case is not a result, and is tried again; the others are kept."""
        path = team / "gt/labelsTs/X_0001_0000.nii.gz"
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2 : len(whole) // 2 + 8] = b"\xff" * 8
        path.write_bytes(damaged)
        found = evaluate(team, pool)
        assert states(found.record) == [CaseState.NOT_EVALUATED, CaseState.SCORED]
        assert found.exit_code == DataError.exit_code
        assert str(path) in str(found.record.tasks["Tiny"].detail.cases)
        path.write_bytes(whole)
        again = evaluate(team, pool)
        assert states(again.record) == [CaseState.SCORED] * 2
        assert (again.computed, again.reused) == (1, 1)


class TestJournal:
    def test_nothing_is_done_twice(self, team: Path, pool: Pool) -> None:
        first = evaluate(team, pool, initial=True)
        second = evaluate(team, pool, initial=True)
        assert (first.computed, first.reused) == (4, 0)
        assert (second.computed, second.reused) == (0, 4)
        assert second.record.tasks == first.record.tasks

    def test_the_zero_field_is_the_same_for_all(self, team: Path, pool: Pool) -> None:
        """Another team's results are begun anew, and those of the zero field are known."""
        first = evaluate(team, pool, initial=True, journal="a")
        second = evaluate(team, pool, initial=True, journal="b")
        assert (second.computed, second.reused) == (2, 2)
        assert second.record.tasks == first.record.tasks
        write_labels(team / "gt/labelsTs/X_0002_0001.nii.gz", shift=3)
        third = evaluate(team, pool, initial=True, journal="c")
        assert (third.computed, third.reused) == (3, 1)

    def test_commands_that_add_to_it_at_once(self, team: Path, pool: Pool) -> None:
        """After a line that one of them, killed, has not finished."""
        path = team / "initial.jsonl"
        path.write_text('{"task": "Ti')
        both = ZeroFields(path), ZeroFields(path)
        _, cases = cases_of_config(team / "config.json", team / "gt", extras=False, initial=True)
        jobs = [Job(rules=cases.rules, case=case, field=None) for case in cases.cases]
        for zero, (_, outcome) in zip(both, pool.run(jobs), strict=True):
            zero.add("Tiny", outcome)
        again = ZeroFields(path)
        assert all(again.known("Tiny", case.key) is not None for case in cases.cases)

    @pytest.mark.parametrize("what", ["field", "labels", "landmarks", "rules"])
    def test_what_changed_is_done_again(self, what: str, team: Path, pool: Pool) -> None:
        evaluate(team, pool)
        if what == "field":
            write_field(team / "fields/disp_0002_0002.npz", (1, 0, 0))
        elif what == "labels":
            write_labels(team / "gt/labelsTs/X_0002_0001.nii.gz", shift=3)
        elif what == "landmarks":
            (team / "gt/landmarksTs/X_0002_0001.csv").write_text("1,2,3\n4,5,6\n")
        else:
            content = config(tre=True)
            content["evaluation_methods"][1]["labels"] = [1]
            write_config(team / "config.json", content)
        again = evaluate(team, pool)
        assert again.computed == (2 if what == "rules" else 1)

    def test_line_that_was_cut_off_is_done_again(self, team: Path, pool: Pool) -> None:
        evaluate(team, pool)
        journal = team / "cases.jsonl"
        journal.write_text(journal.read_text()[:-40])
        again = evaluate(team, pool)
        assert (again.computed, again.reused) == (1, 1)
        assert evaluate(team, pool).computed == 0

    def test_two_commands_do_not_share_it(self, team: Path, pool: Pool) -> None:
        with (
            open_journal(team / "cases.jsonl"),
            pytest.raises(OutputError, match="another command"),
        ):
            evaluate(team, pool)


class TestWorkers:
    def jobs(self, team: Path) -> list[Job]:
        _, cases = cases_of_config(team / "config.json", team / "gt", extras=False, initial=False)
        source = look_at_source(team / "fields", (cases,), team / "runs", all_tasks=True)
        return [
            Job(rules=cases.rules, case=case, field=source.field_of(case)) for case in cases.cases
        ]

    def test_one_that_is_killed_loses_nothing(self, team: Path) -> None:
        """As by the kernel, when memory runs out."""
        jobs = self.jobs(team)
        with Pool(1) as pool:
            running = pool.run([*jobs, *jobs])
            next(running)
            (worker,) = pool.process_ids
            os.kill(worker, signal.SIGKILL)
            rest = list(running)
        assert len(rest) == 3
        assert all(outcome.record.state is CaseState.SCORED for _, outcome in rest)

    def test_case_that_kills_its_worker_twice_is_reported(self, team: Path, pool: Pool) -> None:
        """A named pipe in the truth's place: its reader waits, and is killed, each time."""
        fifo = team / "gt/landmarksTs/X_0001_0001.csv"
        fifo.unlink()
        os.mkfifo(fifo)
        outcomes = []
        others = map(str, pool.process_ids)
        with Pool(2) as killed:
            running = killed.run(self.jobs(team))
            outcomes.append(next(running)[1])  # the other case: the first one waits for the pipe
            killer = subprocess.Popen([sys.executable, "-c", KILLER, str(os.getpid()), *others])
            outcomes += [outcome for _, outcome in running]
            killer.terminate()
            killer.wait()
        scored, lost = outcomes
        assert scored.record.state is CaseState.SCORED
        assert lost.record.state is CaseState.NOT_EVALUATED
        assert "SIGKILL" in (lost.record.reason or "")

    def test_none_is_left_behind(self, team: Path) -> None:
        with Pool(2) as pool:
            running = pool.run(self.jobs(team))
            next(running)
            workers = pool.process_ids
        assert workers
        assert not any(psutil.pid_exists(worker) for worker in workers)

    def test_one_that_is_stopped_by_another_thread_records_nothing(self, team: Path) -> None:
        """Not even when its processes have ended before."""
        (team / "gt/landmarksTs/X_0001_0001.csv").unlink()
        os.mkfifo(team / "gt/landmarksTs/X_0001_0001.csv")
        with Pool(2) as pool:
            running = pool.run(self.jobs(team))
            next(running)  # the other one waits at the pipe
            workers = pool.process_ids
            stopper = threading.Timer(0.5, pool.stop)
            stopper.start()
            with pytest.raises(Interrupted):
                next(running)
            stopper.join()
            with pytest.raises(Interrupted):
                next(pool.run(self.jobs(team)))
        assert not any(psutil.pid_exists(worker) for worker in workers)

    def test_bug_is_told_and_does_not_end_the_worker(self, team: Path, pool: Pool) -> None:
        good = self.jobs(team)
        bad = replace(good[0], rules=replace(good[0].rules, specs=()))
        outcomes = [outcome for _, outcome in pool.run([bad, good[1]])]
        assert [one.record.state for one in outcomes] == [
            CaseState.NOT_EVALUATED,
            CaseState.SCORED,
        ]

    def test_none_outlives_a_command_that_is_killed(self, team: Path) -> None:
        script = team / "script.py"
        script.write_text(IDLE)
        with subprocess.Popen(
            [sys.executable, str(script), str(team)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        ) as process:
            assert process.stdout is not None
            worker = psutil.Process(int(process.stdout.readline()))
            process.kill()
        psutil.wait_procs([worker], timeout=20)
        assert has_ended(worker)


# A command that goes on after its worker has answered.
IDLE = """
import sys, time
from pathlib import Path
from harness.scoring.pool import Pool
from tests.unit.test_scoring import TestWorkers
if __name__ == "__main__":
    with Pool(1) as pool:
        next(pool.run(TestWorkers().jobs(Path(sys.argv[1]))))
        print(*pool.process_ids, flush=True)
        time.sleep(60)
"""

# Ends the workers of a process one after the other, when each has had time to open its files.
KILLER = """
import sys, time, psutil
parent, others = psutil.Process(int(sys.argv[1])), set(map(int, sys.argv[2:]))
while True:
    time.sleep(1.0)
    for child in parent.children():
        if child.pid not in others and "spawn_main" in " ".join(child.cmdline()):
            if child.status() == "sleeping" and time.time() - child.create_time() > 4:
                child.kill()
"""


class TestCapacity:
    def test_limits_of_both_versions_of_cgroups(self, tmp_path: Path) -> None:
        gib = 1 << 30
        second = tmp_path / "second"
        second.mkdir()
        (second / "memory.max").write_text(f"{gib}\n")
        (second / "cpu.max").write_text("max 100000\n")
        first = tmp_path / "first"
        for name, value in (
            ("memory/memory.limit_in_bytes", str(64 * gib)),
            ("cpu/cpu.cfs_quota_us", "100000"),
            ("cpu/cpu.cfs_period_us", "100000"),
        ):
            (first / name).parent.mkdir(parents=True, exist_ok=True)
            (first / name).write_text(value)
        assert workers_that_fit(second) == 1
        assert workers_that_fit(first) == 1
        assert workers_that_fit(tmp_path) == len(os.sched_getaffinity(0))


class TestCommand:
    def run(self, team: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", "evaluate", *arguments],
            cwd=team,
            capture_output=True,
            text=True,
            check=False,
        )

    OFFICIAL = ("-i", "fields", "-d", "gt", "-c", "config.json", "-o", "out.json")

    def test_in_place_of_the_official_script(self, team: Path) -> None:
        done = self.run(team, *self.OFFICIAL, "-v", "--json")
        assert done.returncode == 0, done.stderr
        content = json.loads(done.stdout)
        assert content == json.loads((team / "out.json").read_text())
        assert {"name", "aggregates", "cases", "eval_version"} < content.keys()

    def test_data_beside_a_configuration_is_the_truth(self) -> None:
        """As in the official script, where it is the long form of -d."""
        official = ["evaluate", "-i", "fields", "-c", "config.json"]
        with pytest.raises(DataError, match=r"the ground truth.*found gt and fields"):
            CliRunner().invoke(
                app, [*official, "-d", "gt", "--data", "fields"], catch_exceptions=False
            )

    def test_several_and_the_table(self, team: Path) -> None:
        write_field(team / "others/disp_0001_0001.npz", (0, 0, 0))
        done = self.run(team, "fields", "others", "-d", "gt", "-c", "config.json", "-o", "out")
        assert done.returncode == FieldError.exit_code
        assert "missing" in done.stdout
        lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
        assert lines["fields"][1:4] == ["2/2", "1.0000", "1.0000"]
        assert lines["others"][1:3] == ["1/2", "0.5833"]
        assert lines["Initial"][1:3] == ["2/2", "0.5833"]
        assert sorted(path.name for path in (team / "out").glob("*.json")) == [
            "fields.json",
            "others.json",
        ]

    def test_interrupted_keeps_what_is_done(self, team: Path) -> None:
        many = tuple(range(1, 101))
        write_truth(team / "gt", many, tre=True)
        write_config(team / "config.json", config(many, tre=True))
        for case in many:
            write_field(team / f"fields/disp_{case:04d}_{case:04d}.npz")
        with subprocess.Popen(
            [sys.executable, "-m", "harness", "evaluate", *self.OFFICIAL, "--workers", "1"],
            cwd=team,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            journal = team / "out.cases.jsonl"
            deadline_s = time.monotonic() + 60
            while not (journal.exists() and journal.read_text().count("\n")):
                assert time.monotonic() < deadline_s
                time.sleep(0.002)
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "the same command goes on" in message
        again = self.run(team, *self.OFFICIAL)
        assert again.returncode == 0
        assert "0 known" not in again.stderr


class TestContainerEntry:
    """As in the container, without one (tests/docker/test_evaluation_image.py has the rest)."""

    def run(self, team: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        places = {"INPUT": "fields", "GROUND_TRUTH": "gt", "OUTPUT": "out/metrics.json"}
        (team / "out").mkdir(exist_ok=True)
        environment = {f"HARNESS_{name}": str(team / path) for name, path in places.items()}
        return subprocess.run(
            [sys.executable, "-m", "harness.scoring"],
            cwd=team,
            env=os.environ | environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_official_configuration(self, team: Path) -> None:
        (team / "config.json").rename(team / "gt/Tiny_VAL_evaluation_config.json")
        done = self.run(team)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        content = json.loads((team / "out/metrics.json").read_text(), parse_constant=pytest.fail)
        assert content["aggregates"]["TRE_lm"]["mean"] == 0.0
        assert all(case["labels"] == {} for case in content["detail"]["cases"].values())

    def test_truth_that_only_a_worker_finds_broken(self, team: Path) -> None:
        (team / "config.json").rename(team / "gt/Tiny_VAL_evaluation_config.json")
        labels = team / "gt/labelsTs/X_0001_0000.nii.gz"
        content = bytearray(labels.read_bytes())
        content[-8] ^= 1  # its checksum
        labels.write_bytes(content)
        done = self.run(team)
        assert done.returncode == 11
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "X_0001" not in done.stderr
        assert not (team / "out/metrics.json").exists()
        assert str(labels) in self.run(team, HARNESS_ORGANISER="1").stderr

    def test_challenge_in_place_of_a_configuration(self, team: Path) -> None:
        """Its lists lie in the ground truth. Once they were looked for in ``test/``, too, wherever
        it was started: a dry run's data decided what was scored."""
        elsewhere = team / "test/task_01/pairs_val.csv"
        elsewhere.parent.mkdir(parents=True)
        elsewhere.write_text("fixed,moving\n1,1\n")
        done = self.run(team)
        assert done.returncode == 11
        done = self.run(team, HARNESS_CHALLENGE="learn2reg2021", HARNESS_ORGANISER="1")
        assert "expected a list of pairs (task_01/pairs_val.csv" in done.stderr

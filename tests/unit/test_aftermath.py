"""What became of attempts whose maker was killed: real processes, real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.campaign.aftermath import find_out
from harness.campaign.job import perform
from harness.campaign.order import JobOrder, Outcome
from harness.engine.owner import Owner
from harness.engine.process import ProcessEngine
from harness.errors import Blame, OutputError
from harness.started import read_start, write_start
from harness.store import RunDirectory, RunStatus
from tests.tiny import ZERO
from tests.unit.test_campaign_job import fields_zip, folder, order, site

if TYPE_CHECKING:
    from harness.campaign.site import Site
    from harness.engine.base import Engine, EngineName

__all__ = ["site"]  # the fixture

HANGS = f"if pair.fixed_id == 2:\n    time.sleep(300)\n{ZERO}"
MAKER = """
import sys
from pathlib import Path
from harness.campaign.job import perform
from harness.campaign.order import JobOrder, Place
from harness.campaign.site import Site
from harness.engine.owner import Owner
from harness.engine.process import ProcessEngine
from tests.unit.test_campaign_job import data_digest
top = Path(sys.argv[1])
site = Site(place=Place(name="here", machine="here"), runs_dir=top / "runs",
            data_dir=top / "test", engine=ProcessEngine(), data_digest=data_digest,
            lock_dir=top / "locks")
order = JobOrder.model_validate_json((top / "order.json").read_text())
def tell(seen):
    if seen.progress is not None:
        print(seen.progress.step, flush=True)
print(perform(order, site, tell).model_dump_json(), flush=True)
"""


def process_engine(_: EngineName) -> Engine:
    return ProcessEngine()


def begin(tmp_path: Path, asked: JobOrder, until: str) -> subprocess.Popen[str]:
    """Another process that makes an attempt, and has come so far."""
    (tmp_path / "order.json").write_text(asked.model_dump_json(by_alias=True))
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == until:
            return process
    raise AssertionError(f"it ended before it came to {until}")


def run_dir_of(site: Site) -> RunDirectory:
    return RunDirectory(site.runs_dir / "team/20260101-000000")


def test_killed_in_the_second_pair(tmp_path: Path, site: Site) -> None:
    process = begin(tmp_path, order(site, folder(tmp_path, HANGS)), "field_written")
    run_dir = run_dir_of(site)
    with pytest.raises(OutputError, match=rf"process {process.pid}\) still makes this run"):
        find_out(run_dir, process_engine)
    process.kill()
    process.communicate()
    end = find_out(run_dir, process_engine)
    assert (end.outcome, end.status) == (Outcome.RAN, RunStatus.INTERRUPTED)
    assert (end.recovered, end.blame, end.is_final) == (True, Blame.MACHINE, False)
    assert (end.valid_fields, end.expected_fields, end.is_timed) == (1, 4, False)
    assert end.runtimes_s == {}
    again = find_out(run_dir, process_engine)
    assert again == end.model_copy(update={"recovered": False})


def test_lock_of_one_that_was_killed_is_taken_after_its_submission_is_gone(
    tmp_path: Path, site: Site
) -> None:
    process = begin(tmp_path, order(site, folder(tmp_path, HANGS)), "field_written")
    left = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    with site.lock.heavy("importing", patience_s=10.0):
        _, alive = psutil.wait_procs(left, timeout=10)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert ProcessEngine().left_of(read_start(run_dir_of(site)).owner) == ()


def test_killed_before_it_started(tmp_path: Path, site: Site) -> None:
    process = begin(tmp_path, order(site, folder(tmp_path, HANGS)), "warming")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run_dir = run_dir_of(site)
    end = find_out(run_dir, process_engine)
    if end.outcome is Outcome.RAN:  # it was quicker than we
        assert end.recovered
        return
    assert (end.outcome, end.blame, end.is_final) == (Outcome.NEVER_STARTED, Blame.MACHINE, False)
    assert not run_dir.path.exists()


def test_never_made(tmp_path: Path, site: Site) -> None:
    assert find_out(run_dir_of(site), process_engine).outcome is Outcome.NEVER_STARTED
    there = RunDirectory.make(site.runs_dir, "team", "20260101-000000")
    (there.output_dir / "task_01").mkdir(parents=True)
    for path in (there.reserve_path, there.growing_trace, there.path / "started.part"):
        path.write_bytes(b"x")
    (there.fields_dir / "task_01").mkdir(parents=True)
    (there.fields_dir / "task_01/disp_0001_0001.npz").write_bytes(b"half of a copy")
    assert find_out(there, process_engine).outcome is Outcome.NEVER_STARTED
    assert not there.path.exists()


def test_what_is_no_work_of_ours_stays(tmp_path: Path, site: Site) -> None:
    there = RunDirectory.make(site.runs_dir, "team", "20260101-000000")
    (there.path / "thesis.pdf").write_bytes(b"x")
    with pytest.raises(OutputError, match="found other files"):
        find_out(there, process_engine)
    assert (there.path / "thesis.pdf").exists()


def test_ended_and_not_told(tmp_path: Path, site: Site) -> None:
    """Whatever its kind: killed between the record and the journal's next line."""
    run = perform(order(site, folder(tmp_path, ZERO)), site)
    assert find_out(run_dir_of(site), process_engine) == run
    asked = order(site, fields_zip(tmp_path / "up.zip", n=3), run_id="fields")
    fields = perform(asked, site)
    assert find_out(RunDirectory(site.runs_dir / "team/fields"), process_engine) == fields
    (tmp_path / "empty").mkdir()
    source = folder(tmp_path, ZERO).model_copy(update={"path": tmp_path / "empty"})
    refused = perform(order(site, source, run_id="refused"), site)
    assert refused.outcome is Outcome.REFUSED
    assert find_out(RunDirectory(site.runs_dir / "team/refused"), process_engine) == refused


def test_run_that_this_process_left_unfinished(tmp_path: Path, site: Site) -> None:
    """Ctrl-C twice, and a campaign that goes on in the same process."""
    process = begin(tmp_path, order(site, folder(tmp_path, HANGS)), "field_written")
    process.kill()
    process.communicate()
    run_dir = run_dir_of(site)
    start = read_start(run_dir)
    write_start(run_dir, start.model_copy(update={"owner": Owner.current()}))
    ProcessEngine().sweep()
    end = find_out(run_dir, process_engine)
    assert (end.outcome, end.recovered) == (Outcome.RAN, True)


def test_ctrl_c_ends_the_run_and_not_the_campaign_s_record(tmp_path: Path, site: Site) -> None:
    process = begin(tmp_path, order(site, folder(tmp_path, HANGS)), "field_written")
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert '"status":"interrupted"' in told.splitlines()[-1]
    assert run_dir_of(site).read_record().status is RunStatus.INTERRUPTED


def test_ctrl_c_while_it_waits_leaves_nothing(tmp_path: Path, site: Site) -> None:
    (tmp_path / "order.json").write_text(
        order(site, folder(tmp_path, ZERO)).model_dump_json(by_alias=True)
    )
    maker = MAKER.replace("if seen.progress is not None:", "if seen.doing.startswith('waiting'):")
    maker = maker.replace("print(seen.progress.step, flush=True)", "print(seen.doing, flush=True)")
    with site.lock.heavy("importing"):
        process = subprocess.Popen(
            [sys.executable, "-c", maker, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "importing" in line:
                break
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    assert not (site.runs_dir / "team").exists()

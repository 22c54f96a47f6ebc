"""An attempt's fields checked and scored, held against what the two commands write."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.campaign.job import perform
from harness.campaign.machine_lock import MachineLock
from harness.campaign.order import Outcome, Place
from harness.campaign.score import score_attempt
from harness.campaign.site import Site
from harness.challenge.model import Challenge, Metric, parse_challenge
from harness.check.report import CheckReport
from harness.cli import app
from harness.engine.process import ProcessEngine
from harness.errors import DataError, MachineBusy
from harness.scoring.evaluate import ZeroFields
from harness.store import RunDirectory
from tests.tiny import GRID, YAML, write_data
from tests.unit.test_campaign_job import data_digest, order, zip_source
from tests.unit.test_evaluate_command import FIRST, SECOND, save, write_half

if TYPE_CHECKING:
    from pathlib import Path

    from harness.campaign.events import Scored
    from harness.scoring.pool import Pool


def gain(initial: float | None, value: float | None, metric: Metric) -> float | None:
    """How far from the zero field to a perfect one."""
    if initial is None or value is None:
        return None
    return (value - initial) / ((1.0 if metric is Metric.DICE else 0.0) - initial)


@pytest.fixture
def challenge(tmp_path: Path) -> Challenge:
    """Everything moving lies two voxels further along x."""
    first, second = YAML.split("  - <<: *task")
    text = f"{first}{FIRST}  - <<: *task{second}{SECOND}"
    (tmp_path / "tiny.yaml").write_text(text)
    write_data(tmp_path / "test", second=((7, 8),))
    truth = tmp_path / "truth"
    for case in (1, 2):
        for name, shift in ((f"seg{case:04d}", 0), (f"seg{case:04d}_moving", 2)):
            labels = np.zeros(GRID, np.uint8)
            labels[4 + shift : 8 + shift, 3:9, 5:9] = 7
            save(truth / f"task_01/{name}.nii.gz", labels, (1, 1, 1))
    save(truth / "task_02/mask0007.nii.gz", np.ones(GRID, np.uint8), (1, 1, 1))
    (truth / "task_02/fixed0007.csv").write_text("4,5,6\n")
    (truth / "task_02/moving0008.csv").write_text("6,5,6\n")
    return parse_challenge(text, origin="tiny")


def handed_in(tmp_path: Path, challenge: Challenge, *cases: tuple[str, float]) -> RunDirectory:
    """A zip of fields that move everything so far along x."""
    upload = tmp_path / "up.zip"
    with zipfile.ZipFile(upload, "w") as archive:
        archive.writestr("README.txt", "ours")
        for name, shift in cases:
            write_half(tmp_path / "field.npz", (shift, 0, 0))
            archive.write(tmp_path / "field.npz", name)
    site = Site(
        place=Place(name="here", machine="here"),
        runs_dir=tmp_path / "runs",
        data_dir=tmp_path / "test",
        engine=ProcessEngine(),
        data_digest=data_digest,
        lock_dir=tmp_path / "locks",
    )
    text = (tmp_path / "tiny.yaml").read_text()
    asked = order(site, zip_source(upload), challenge, challenge_text=text)
    end = perform(asked, site)
    assert end.outcome is Outcome.FIELDS
    return RunDirectory(site.runs_dir / "team/20260101-000000")


ALL = (
    ("task_01/disp_0001_0001.npz", 2.0),
    ("task_01/disp_0002_0002.npz", 2.0),
    ("task_02/disp_0007_0008.npz", 1.0),
)


def score(tmp_path: Path, challenge: Challenge, run_dir: RunDirectory, pool: Pool) -> Scored:
    return score_attempt(
        run_dir,
        challenge,
        tmp_path / "truth",
        tmp_path / "test",
        lock=MachineLock(tmp_path / "locks", clean_after=lambda _: None),
        truth_digest=f"sha256:{'7' * 64}",
        gain=gain,
        pool=pool,
        patience_s=1.0,
    )


def test_as_the_two_commands_do(
    tmp_path: Path, challenge: Challenge, pool: Pool, running_workers: None
) -> None:
    run_dir = handed_in(tmp_path, challenge, *ALL)
    scored = score(tmp_path, challenge, run_dir, pool)
    assert (scored.team, scored.run_id) == ("team", "20260101-000000")
    assert (scored.exit_code, scored.findings, scored.problem) == (0, 0, None)
    assert scored.gains == {"task_01": 1.0, "task_02": pytest.approx(0.5)}
    assert scored.metrics["task_01"]["DSC"] == 1.0
    assert scored.metrics["task_02"]["TRE"] == pytest.approx(1.0)
    ours = run_dir.evaluation_path.read_text()
    given = ["--challenge", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path / "test")]
    given += ["--runs", str(tmp_path / "runs")]
    line = ["evaluate", str(run_dir.path), "--truth", str(tmp_path / "truth"), *given]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "0 computed" in done.output, "the journal beside the run is shared"
    theirs = run_dir.evaluation_path.read_text()
    assert without_time(theirs) == without_time(ours)
    done = CliRunner().invoke(app, ["check", str(run_dir.path), *given, "--json"])
    assert done.exit_code == 0, done.output
    assert CheckReport.model_validate_json(done.stdout) == CheckReport.model_validate_json(
        run_dir.check_path.read_text()
    )


def without_time(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"created"' not in line]


def test_case_without_a_field_is_as_good_as_the_zero_field(
    tmp_path: Path, challenge: Challenge, pool: Pool
) -> None:
    """The official aggregates leave it out, so to hand in the easy ones alone would pay."""
    run_dir = handed_in(tmp_path, challenge, ALL[0])
    scored = score(tmp_path, challenge, run_dir, pool)
    assert (scored.exit_code, scored.findings) == (21, 1)
    assert scored.metrics["task_01"]["DSC"] == 1.0
    assert scored.gains == {"task_01": pytest.approx(0.5)}


def test_truth_that_is_not_there_is_the_organiser_s(
    tmp_path: Path, challenge: Challenge, pool: Pool
) -> None:
    run_dir = handed_in(tmp_path, challenge, *ALL)
    (tmp_path / "truth/task_02/fixed0007.csv").unlink()
    with pytest.raises(DataError, match=r"fixed0007\.csv"):
        score(tmp_path, challenge, run_dir, pool)
    assert not run_dir.evaluation_path.exists()


def test_never_while_somebody_has_the_machine(
    tmp_path: Path, challenge: Challenge, pool: Pool
) -> None:
    run_dir = handed_in(tmp_path, challenge, *ALL)
    other = MachineLock(tmp_path / "locks", clean_after=lambda _: None)
    with other.heavy("a campaign's timed run, of others"), pytest.raises(MachineBusy, match="of o"):
        score(tmp_path, challenge, run_dir, pool)


def test_progress_is_told_of_each_case_and_its_zero_field(
    tmp_path: Path, challenge: Challenge, pool: Pool
) -> None:
    run_dir = handed_in(tmp_path, challenge, *ALL)
    seen: list[str] = []
    scored = score_attempt(
        run_dir,
        challenge,
        tmp_path / "truth",
        tmp_path / "test",
        lock=MachineLock(tmp_path / "locks", clean_after=lambda _: None),
        truth_digest=None,
        gain=lambda *_: None,
        pool=pool,
        zero=ZeroFields(),
        on_progress=seen.append,
    )
    assert scored.gains == {"task_01": None, "task_02": None}
    assert len(seen) == 6  # three cases, and the zero field of each

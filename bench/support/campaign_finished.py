"""A campaign in which nothing is outstanding any more, made quickly; and taking it up again.

``python -m bench.support.campaign_finished FOLDER TEAMS UPLOADS_EACH`` makes it in FOLDER: real
uploads, whose digests the command itself computed and remembered, the journal as the conductor
writes it (but not waiting for the disk after each line), and each run's record.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.support.campaign_command import request
from bench.support.image import ROOT
from bench.support.simulated_crew import SimulatedCrew
from harness import __version__, campaigning
from harness.campaign.admission import Admission
from harness.campaign.crew import Ended
from harness.campaign.events import AttemptEnded, AttemptStarted, Closed, Opened, Scored
from harness.campaign.intake import Scan
from harness.campaign.journal import Journal, read_journal
from harness.campaign.order import AttemptKind
from harness.campaign.orders import order_of
from harness.campaign.setting import Setting, write_setting
from harness.campaign.state import replay
from harness.store import RunDirectory
from tests.campaign_parts import CampaignFiles

if TYPE_CHECKING:
    from harness.campaign.content import Contents
    from harness.campaign.events import Event
    from harness.campaign.intake import Arrived, Intake
    from harness.campaign.means import Campaign
    from harness.campaign.order import JobEnd, Place
    from harness.campaign.state import CampaignState
    from harness.engine.base import Engine

_REMEMBERED_S = 2.2  # what is younger is read again by the next command: see content.py
_SAMPLE_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """``wall_s``: of the command, from the start of its process to its end. ``again``: attempts
    that it began, of which there must be none."""

    teams: int
    runs: int
    wall_s: float
    peak_bytes: int
    exit_code: int
    again: int
    journal_bytes: int

    @property
    def is_right(self) -> bool:
        return self.exit_code == 0 and self.again == 0


def resume(folder: Path, teams: int, uploads_each: int) -> Resumed:
    command = [sys.executable, "-m", "bench.support.campaign_finished"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # As at a user's: from its second run on, Python finds its own modules compiled.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(
        [*command, str(folder), str(teams), str(uploads_each)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    os.sync()  # what it wrote without waiting for the disk
    journal = folder / "runs/_campaign/journal.jsonl"
    before = _attempts(journal)
    command = [
        *(sys.executable, "-m", "harness", "campaign", "submissions", "--challenge", "tiny.yaml"),
        *("--engine", "docker", "--campaign", "campaign.yaml", "--plain"),
    ]
    begin_s = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        peak_bytes = 0
        while process.poll() is None:
            try:
                peak_bytes = max(peak_bytes, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(_SAMPLE_S)
        code = process.wait()
    wall_s = time.perf_counter() - begin_s
    return Resumed(
        teams=teams,
        runs=before,
        wall_s=wall_s,
        peak_bytes=peak_bytes,
        exit_code=code,
        again=_attempts(journal) - before,
        journal_bytes=journal.stat().st_size,
    )


def _attempts(journal: Path) -> int:
    return sum(isinstance(line.event, AttemptStarted) for line in read_journal(journal))


def make(folder: Path, teams: int, uploads_each: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = CampaignFiles(folder)
    files.write_policy("counted: best\n" if uploads_each > 1 else "")
    for number in range(teams):
        team = files.submissions / f"team{number:04d}"
        team.mkdir()
        for upload in range(uploads_each):
            (team / f"upload{upload}.tar.gz").write_bytes(b"%d %d" % (number, upload))
    record = _record(folder / "real")
    time.sleep(_REMEMBERED_S)

    def finish(  # in place of campaigning's own, with all that the command has found out
        _request: campaigning.Request,
        campaign: Campaign,
        places: object,
        engine: Engine,
        gpu: str | None,
        contents: Contents,
        intake: Intake,
        truth_digest: str,
    ) -> int:
        del places
        scan = intake.scan(watching=False, now_s=time.time())
        if len(scan.uploads) != teams * uploads_each:
            raise RuntimeError(f"{len(scan.uploads)} uploads were taken: {scan.rejected[:3]}")
        site = getattr(campaigning, "_site")  # noqa: B009 - the place as the command names it
        place = site(campaign, _places(folder), engine, gpu, contents, _request).place
        _finish(campaign, scan.uploads, place, truth_digest, record)
        return 0

    setattr(campaigning, "_conduct", finish)  # noqa: B010
    setattr(os, "fsync", lambda _: None)  # noqa: B010
    campaigning.run_campaign(request(folder))


def _places(folder: Path) -> object:
    return getattr(campaigning, "_places")(request(folder))  # noqa: B009


def _finish(
    campaign: Campaign,
    uploads: tuple[Arrived, ...],
    place: Place,
    truth_digest: str,
    record: bytes,
) -> None:
    write_setting(campaign.folder, Setting(policy=campaign.policy, tasks=campaign.task_names))
    crew = SimulatedCrew(1)
    with Journal(campaign.folder.journal_path) as journal:
        state, admission = replay(()), Admission()

        def write(event: Event) -> None:
            state.apply(journal.append(event))
            admission.note(event)

        write(Opened(conditions=campaign.conditions, seed=campaign.policy.seed))
        for event in admission.events(state, campaign.policy, Scan(uploads=uploads)):
            write(event)
        for number, arrived in enumerate(uploads):
            team, run_id = arrived.upload.team, f"20260101-{number:06d}"
            started = AttemptStarted(
                kind=AttemptKind.SUBMISSION,
                team=team,
                run_id=run_id,
                place=place,
                upload=arrived.upload.id,
            )
            write(started)
            end = _end(crew, campaign, state, started)
            directory = RunDirectory.make(campaign.folder.runs_dir, team, run_id)
            directory.record_path.write_bytes(record)
            write(AttemptEnded(team=team, run_id=run_id, end=end))
            write(_scored(team, run_id, truth_digest))
        write(Closed(exit_code=0, outstanding=0))


def _end(
    crew: SimulatedCrew, campaign: Campaign, state: CampaignState, started: AttemptStarted
) -> JobEnd:
    """One that needs no further attempt: a team's success, or its own fault."""
    order = order_of(
        started,
        state,
        conditions=campaign.conditions,
        challenge=campaign.challenge,
        challenge_text=campaign.challenge_text,
        changed_limits=(),
        exclusive=campaign.policy.exclusive,
        calibration=None,
    )
    if order is None:
        raise RuntimeError(f"{started.team}: nothing to be run for it")
    while True:
        crew.give(order, crew.places()[0].name)
        for report in crew.poll(0.0):
            if isinstance(report, Ended) and report.end.is_final:
                return report.end


def _scored(team: str, run_id: str, truth_digest: str) -> Scored:
    tasks = ("task_01", "task_02")
    return Scored(
        team=team,
        run_id=run_id,
        exit_code=0,
        findings=0,
        truth_digest=truth_digest,
        harness_version=__version__,
        gains=dict.fromkeys(tasks, 0.5),
        metrics={name: {"dice": 0.8, "sdlogj": 0.05} for name in tasks},
    )


def _record(folder: Path) -> bytes:
    """run.json of one real run."""
    folder.mkdir()
    files = CampaignFiles(folder)
    files.add("one")
    files.settle()
    files.run(*files.arguments())
    (path,) = folder.glob("runs/one/*/run.json")
    return path.read_bytes()


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

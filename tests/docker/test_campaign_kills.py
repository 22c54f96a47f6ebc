"""A campaign with real containers, whatever cuts it short: nothing is lost, and nothing is doubled.

The results of one that nobody disturbed are what those of all others must be.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.campaign.events import AttemptEnded, AttemptStarted
from harness.campaign.folder import CampaignFolder
from harness.campaign.journal import Journal, read_journal
from harness.campaign.order import Outcome
from harness.errors import Blame, Interrupted
from harness.store import RunStatus
from tests.conftest import lacks
from tests.docker import private_engine
from tests.docker.campaign_command import CampaignCommand, Phase, harness
from tests.docker.campaign_results import CampaignResults
from tests.docker.campaign_uploads import (
    CRASHING,
    DROPPED,
    EXACT,
    HALFWAY,
    MARKUP,
    REFERENCE,
    REJECTED,
    Expected,
    Folder,
    ImageMaker,
    fields_zip,
    hand_in,
    root_layer,
)
from tests.docker.leftovers import LABEL, Leftovers
from tests.docker.private_engine import PrivateEngine
from tests.tiny import write_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker import DockerClient

    from harness.campaign.state import Attempt
    from harness.engine.base import Image
    from harness.engine.docker import DockerEngine
    from tests.docker.conftest import Tags

pytestmark = pytest.mark.docker

KILLS = 20
SEED = 20211
# Where the kills are meant to land; the rest, anywhere. How many at least must have.
AIMED_AT = (Phase.RUN,) * 6 + (Phase.IMPORT,) * 4 + (Phase.SCORING,) * 4 + (Phase.RECORD,) * 2
AT_LEAST = {Phase.RUN: 3, Phase.IMPORT: 2, Phase.SCORING: 2}
QUICK_CPU_S = 2.5  # of a command that has nothing to do: its start, and a look at everything


@pytest.fixture(scope="module")
def maker(client: DockerClient, base: str) -> Iterator[ImageMaker]:
    others = _images(client)  # of faults, say: their tests may follow in this process
    yield ImageMaker(root=root_layer(client, base), label=LABEL)
    while _remove_images(client, others):
        continue


def _images(client: DockerClient) -> set[str]:
    return {str(one.id) for one in client.images.list(all=True, filters={"label": LABEL})}


def _remove_images(client: DockerClient, others: set[str]) -> int:
    """How many were removed: one that others were built on goes after them."""
    removed = 0
    for image_id in _images(client) - others:
        with suppress(docker.errors.APIError):
            client.images.remove(image_id, force=True)
            removed += 1
    return removed


@pytest.fixture(scope="module")
def reference(engine: DockerEngine, client: DockerClient, maker: ImageMaker, tags: Tags) -> Image:
    """The reference image, and the one that a folder's Dockerfile begins with."""
    (loaded,) = client.images.load(maker.tar(REFERENCE, tag=(name := tags.new())))
    assert loaded.id is not None
    return engine.find(name)


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    folder: Folder
    expected: tuple[Expected, ...]
    exit_code: int
    told: str
    took_s: float
    left: list[str]

    @property
    def results(self) -> CampaignResults:
        return CampaignResults(folder=self.folder.path, dropped=DROPPED)


@pytest.fixture(scope="module")
def undisturbed(
    client: DockerClient,
    maker: ImageMaker,
    reference: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Undisturbed:
    folder = Folder(tmp_path_factory.mktemp("undisturbed"), maker)
    expected = hand_in(folder, reference.reference)
    leftovers = Leftovers(client, folder.path)
    begun_s = time.monotonic()
    with CampaignCommand(folder.path) as command:
        exit_code = command.end()
        took_s = time.monotonic() - begun_s
        return Undisturbed(
            folder=folder,
            expected=expected,
            exit_code=exit_code,
            told=command.told,
            took_s=took_s,
            left=leftovers.found(),
        )


def test_every_upload_ends_as_it_should(undisturbed: Undisturbed) -> None:
    assert undisturbed.left == []
    results = undisturbed.results
    assert results.faults() == []
    final = results.final()
    uploads = {
        (team.team, upload.entry): upload.id
        for team in results.state.teams.values()
        for upload in team.uploads.values()
    }
    told = undisturbed.told
    for one in undisturbed.expected:
        result = final[uploads[one.team, one.entry]]
        assert (result.outcome, result.blame) == (one.outcome, one.blame), (one, result, told)
        assert one.reason in result.reason, (one, result)
        assert one.valid_fields is None or result.valid_fields == one.valid_fields, (one, result)
        if (behaviour := one.behaviour) is not None:
            assert result.status == behaviour.status
            assert tuple(state for _, state, _, _ in result.fields) == behaviour.states, result
            assert len(result.timed) == behaviour.timed, (one, result)
            assert result.metrics is not None, one
    assert len(final) == len(undisturbed.expected), (final.keys(), told)
    assert {entry for entry, _, _ in results.rejected()} == REJECTED
    assert undisturbed.exit_code == 0, told


def test_nobody_s_name_or_words_command_the_terminal(undisturbed: Undisturbed) -> None:
    status = harness(undisturbed.folder.path, "status", "--out", "runs")
    for told in (undisturbed.told, status.stdout, status.stderr):
        controls = {char for char in told if not char.isprintable()} - {"\n", "\t"}
        assert controls == set()
    team = undisturbed.results.state.teams["hostile"]
    assert team.info.display_name is not None
    assert team.info.display_name.startswith(MARKUP.partition("\x1b")[0])


def test_same_command_again_does_nothing(undisturbed: Undisturbed) -> None:
    before = _without_openings(undisturbed)
    final = undisturbed.results.final()
    before_s = _cpu_of_children_s()
    with CampaignCommand(undisturbed.folder.path) as command:
        assert command.end() == undisturbed.exit_code, command.told
    took_s = _cpu_of_children_s() - before_s
    assert _without_openings(undisturbed) == before
    assert undisturbed.results.final() == final
    assert undisturbed.results.faults() == []
    assert 0.0 < took_s < QUICK_CPU_S


def _cpu_of_children_s() -> float:
    """Whatever else the machine does meanwhile."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _without_openings(undisturbed: Undisturbed) -> list[object]:
    lines = read_journal(CampaignFolder(undisturbed.results.runs_dir).journal_path)
    return [line.event for line in lines if line.event.event not in {"opened", "closed"}]


# Killed.


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Once ``finished`` uploads are, at the next ``phase`` (None: whatever it is), ``delay_s``
    later. A phase that is not seen (some take a millisecond) is not waited for longer than two
    uploads."""

    finished: int
    phase: Phase | None
    delay_s: float


def moments(uploads: int, seed: int = SEED) -> list[Moment]:
    """Spread over the whole campaign."""
    chance = random.Random(seed)
    phases = [*AIMED_AT[1:], *(None,) * (KILLS - len(AIMED_AT))]
    chance.shuffle(phases)
    phases.append(AIMED_AT[0])  # there is no later one to be had
    longest_s = {Phase.RUN: 0.6, Phase.IMPORT: 0.3, Phase.SCORING: 0.1, Phase.RECORD: 0.0}
    return [
        Moment(
            finished=n * (uploads - 1) // KILLS,
            phase=phase,
            delay_s=chance.uniform(0.0, 1.5 if phase is None else longest_s[phase]),
        )
        for n, phase in enumerate(phases)
    ]


def test_killed_at_twenty_moments(
    undisturbed: Undisturbed,
    client: DockerClient,
    maker: ImageMaker,
    reference: Image,
    tmp_path: Path,
) -> None:
    """The same uploads, and SIGKILL wherever it hurts; the command alone, as the kernel would."""
    folder = Folder(tmp_path / "killed", maker)
    uploads = len(hand_in(folder, reference.reference))
    leftovers = Leftovers(client, folder.path)
    hits: Counter[Phase] = Counter()
    for moment in moments(uploads):
        hits[_kill_at(folder.path, moment)] += 1
        leftovers.look()
        _check_readable(folder.path / "runs")
    with CampaignCommand(folder.path) as command:
        assert command.end() == undisturbed.exit_code, command.told
    assert leftovers.found() == []
    results = CampaignResults(folder=folder.path, dropped=DROPPED)
    assert results.faults() == []
    assert results.final() == undisturbed.results.final()
    assert results.rejected() == undisturbed.results.rejected()
    assert hits.total() == KILLS
    assert all(hits[phase] >= least for phase, least in AT_LEAST.items()), hits
    assert len(_attempts(results)) > len(_attempts(undisturbed.results))


def _kill_at(folder: Path, moment: Moment) -> Phase:
    """What it was at when it died, as its files tell afterwards."""
    with CampaignCommand(folder) as command:

        def is_there() -> bool:
            finished = sum(one.end is not None and one.end.is_final for one in command.attempts())
            if finished < moment.finished:
                return False
            late = finished >= moment.finished + 2
            return late or moment.phase in {None, command.phase()}

        assert command.wait_until(is_there), (moment, command.told)
        time.sleep(moment.delay_s)
        assert not command.has_ended, (moment, command.told)
        command.kill()
        return command.phase()


def _check_readable(runs_dir: Path) -> None:
    """To its end, and by who comes next."""
    path = CampaignFolder(runs_dir).journal_path
    if path.exists():
        lines = read_journal(path)
        assert [line.n for line in lines] == list(range(1, len(lines) + 1))


def _attempts(results: CampaignResults) -> list[Attempt]:
    return [one for one in results.state.attempts.values() if not one.is_calibration]


# Cut short in other ways: of a few uploads, whose results must be those of the same uploads above.


def hand_in_few(folder: Folder) -> None:
    folder.add_image("alpha.tar", EXACT)
    folder.add_image("crashing.tar", CRASHING)
    folder.add("zipped.zip", fields_zip())
    folder.add_image("again/renamed.tar", HALFWAY, tag="another:name")
    folder.write_policy(calibration={"source": None}, suspect_reruns=0)
    folder.settle()


def check_as_undisturbed(folder: Folder, undisturbed: Undisturbed, runs: str = "runs") -> None:
    results = CampaignResults(folder=folder.path, runs=runs)
    assert results.faults() == []
    final = results.final()
    assert len(final) == 4
    expected = undisturbed.results.final()
    assert final == {upload: expected[upload] for upload in final}


@pytest.fixture
def few(maker: ImageMaker, tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "few", maker)
    hand_in_few(folder)
    return folder


def test_interrupted_in_a_run_it_goes_on(
    undisturbed: Undisturbed, client: DockerClient, few: Folder
) -> None:
    leftovers = Leftovers(client, few.path)
    with CampaignCommand(few.path) as command:
        assert command.wait_until(lambda: command.phase() is Phase.RUN), command.told
        command.signal(signal.SIGINT)
        assert command.end() == Interrupted.exit_code, command.told
        (attempt,) = command.attempts()
        assert attempt.end is not None
        assert attempt.end.status is RunStatus.INTERRUPTED
        assert "the same command goes on" in " ".join(command.told.split())
    assert leftovers.found() == []
    with CampaignCommand(few.path) as command:
        assert command.end() == undisturbed.exit_code, command.told
        assert len(command.attempts()) == 1 + 4
    assert leftovers.found() == []
    check_as_undisturbed(few, undisturbed)


def test_engine_restarted_under_a_run(
    undisturbed: Undisturbed, few: Folder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The machine's fault, which heals: the run is made again, by this command or the same one once
    more."""
    own = tmp_path_factory.mktemp("engine")
    if (why := private_engine.why_none(own)) is not None:
        lacks(why)
    with PrivateEngine(own) as private, closing(private.client()) as client:
        leftovers = Leftovers(client, few.path)
        there = {"DOCKER_HOST": private.host}
        with CampaignCommand(few.path, environment=there) as command:
            assert command.wait_until(lambda: command.phase() is Phase.RUN), command.told
            private.end()
            private.start()
            command.end()
        with CampaignCommand(few.path, environment=there) as command:
            assert command.end() == undisturbed.exit_code, command.told
            faults = [one.end for one in command.attempts() if one.end and not one.end.is_final]
        assert [end.blame for end in faults] == [Blame.MACHINE] * len(faults)
        assert any(end.status is RunStatus.INFRASTRUCTURE for end in faults), faults
        assert leftovers.found(apart_from=private.pid) == []
    check_as_undisturbed(few, undisturbed)


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own, of 16 MiB in memory."""
    if os.geteuid() != 0:
        lacks("a file system of its own needs root")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path) -> Path:
    """To the last byte."""
    path = place / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(place).free == 0
    return path


def test_full_disk_loses_nothing(
    undisturbed: Undisturbed, client: DockerClient, few: Folder
) -> None:
    leftovers = Leftovers(client, few.path)
    place, runs = few.path / "small", "small/runs"
    with small_disk(place):
        with CampaignCommand(few.path, runs) as command:
            assert command.wait_until(lambda: command.phase() is Phase.SCORING), command.told
            filler = fill(place)
            assert command.end() != 0, command.told
            assert "space" in command.told.lower()
        before = _finished(few, runs)
        assert before
        with CampaignCommand(few.path, runs) as command:
            assert command.end() != 0, command.told
        assert _finished(few, runs) == before
        filler.unlink()
        with CampaignCommand(few.path, runs) as command:
            assert command.end() == undisturbed.exit_code, command.told
        assert _finished(few, runs) > before
        check_as_undisturbed(few, undisturbed, runs)
    assert leftovers.found() == []


def _finished(folder: Folder, runs: str) -> set[tuple[str, str]]:
    """Attempts with a result, of a journal that can be read to its end."""
    attempts = _attempts(CampaignResults(folder=folder.path, runs=runs))
    return {one.key for one in attempts if one.end is not None and one.end.is_final}


# What is changed is run again, and nothing else.


class Again:
    """The same command, time and again, and what was new each time."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._seen: set[tuple[str, str]] = set()
        self.told = ""

    def run(self) -> list[tuple[str, Outcome]]:
        """Team and outcome of each new attempt."""
        with CampaignCommand(self._folder.path) as command:
            assert command.end() == 0, command.told
            self.told = " ".join(command.told.split())
            new = [one for one in command.attempts() if one.key not in self._seen]
        self._seen |= {one.key for one in new}
        results = CampaignResults(folder=self._folder.path)
        assert results.faults() == []
        return sorted((one.started.team, one.end.outcome) for one in new if one.end is not None)


def test_what_changed_is_run_again_and_why(maker: ImageMaker, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "changing", maker)
    folder.add_image("alpha.tar", EXACT)
    folder.add_image("again/renamed.tar", HALFWAY, tag="another:name")
    folder.add("zipped.zip", fields_zip())
    folder.write_policy(calibration={"source": None}, suspect_reruns=0)
    folder.settle()
    all_again = [
        ("again", Outcome.RAN),
        ("alpha", Outcome.RAN),
        ("zipped", Outcome.FIELDS),
    ]
    again = Again(folder)
    assert again.run() == all_again
    assert again.run() == []

    tar = folder.add_image("again/same.tar", HALFWAY, tag="yet:another")
    folder.settle()
    assert again.run() == [("again", Outcome.SAME)]
    tar.rename(tar.with_name("renamed-again.tar"))
    folder.settle()
    assert again.run() == []

    folder.add_image("alpha.tar", CRASHING)
    folder.settle()
    assert again.run() == [("alpha", Outcome.RAN)]

    folder.write_challenge(("longest_pair: 2s", "longest_pair: 3s"))
    assert [team for team, _ in again.run()] == ["again", "alpha", "zipped"]
    assert "limit longest_pair: 2.0 before, 3.0 now" in again.told

    write_image(folder.path / "test/task_02/img0008.nii.gz", seed=88)
    assert [team for team, _ in again.run()] == ["again", "alpha", "zipped"]
    assert "data: " in again.told
    assert again.run() == []


# Watched.


def test_watched_folder(
    undisturbed: Undisturbed, client: DockerClient, maker: ImageMaker, tmp_path: Path
) -> None:
    """Uploads appear as they do: slowly, renamed into place, no images, one too many a day."""
    folder = Folder(tmp_path / "watched", maker)
    folder.write_policy(
        calibration={"source": None},
        suspect_reruns=0,
        settle_time="1500ms",
        poll_time="200ms",
        uploads_per_day=1,
    )
    leftovers = Leftovers(client, folder.path)
    with CampaignCommand(folder.path, "runs", "--watch") as command:

        def await_ends(*teams: str) -> None:
            def are_there() -> bool:
                ends = {one.started.team for one in command.attempts() if one.end is not None}
                return ends >= set(teams)

            assert command.wait_until(are_there), (teams, command.told)

        _write_slowly(folder.submissions / "alpha.tar", maker.tar(EXACT))
        folder.add("nonsense.tar", b"this is no image, " * 1000)
        await_ends("alpha", "nonsense")
        part = folder.add_image("bravo.tar.gz.part.gz", HALFWAY)
        part = part.rename(folder.submissions / "bravo.tar.gz.part")
        time.sleep(1.0)
        assert "bravo" not in command.state().teams
        part.rename(folder.submissions / "bravo.tar.gz")
        await_ends("bravo")
        folder.add_image("alpha.tar", REFERENCE)
        assert command.wait_until(lambda: len(command.state().rejected) > 0), command.told
        folder.add_image("crashing.tar", CRASHING)
        await_ends("crashing")
        assert command.wait_until(lambda: command.phase() is Phase.BETWEEN), command.told
        command.signal(signal.SIGTERM)
        assert command.end() == Interrupted.exit_code, command.told
        (rejected,) = command.state().rejected
        assert (rejected.entry, rejected.team) == ("alpha.tar", "alpha")
        assert len(command.attempts()) == 4
    assert leftovers.found() == []
    check_as_undisturbed(folder, undisturbed)


def _write_slowly(path: Path, content: bytes, pieces: int = 8) -> None:
    size = -(-len(content) // pieces)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])
            time.sleep(0.25)


# The comparison sees what must not be.


def test_what_is_lost_doubled_or_left_is_seen(undisturbed: Undisturbed, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(undisturbed.results.runs_dir, runs, symlinks=True)

    def faults() -> list[str]:
        return CampaignResults(folder=tmp_path, dropped=DROPPED).faults()

    assert faults() == []
    (run_dir,) = (runs / "alpha").iterdir()
    run_dir.rename(tmp_path / "away")
    assert any("without its directory" in text for text in faults())
    (tmp_path / "away").rename(run_dir)
    (runs / "alpha/20200101-000000").mkdir()
    assert any("of no attempt" in text for text in faults())
    (runs / "alpha/20200101-000000").rmdir()
    (run_dir / "run.part").touch()
    assert any("left: " in text for text in faults())
    (run_dir / "run.part").unlink()
    assert faults() == []
    _double(runs, run_dir.name)
    assert any("2 final attempts" in text for text in faults())


def _double(runs: Path, run_id: str) -> None:
    """A second final attempt of the same upload, directory and all."""
    with Journal(CampaignFolder(runs).journal_path) as journal:
        events = [line.event for line in journal.lines]
        for event in events:
            if isinstance(event, AttemptStarted | AttemptEnded) and event.run_id == run_id:
                journal.append(event.model_copy(update={"run_id": "20200101-000000"}))
    shutil.copytree(runs / "alpha" / run_id, runs / "alpha/20200101-000000")

"""Whatever lies in the submissions folder: one line for each, and no exception for any."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.content import Contents
from harness.campaign.entry_name import shown_name, slug
from harness.campaign.events import Line, UploadRejected, UploadSeen
from harness.campaign.intake import Arrived, Intake, Scan
from harness.campaign.policy import Policy, TeamOverride
from harness.campaign.upload import TEAM_PATTERN, UploadKind
from harness.challenge.model import load_challenge
from harness.errors import CampaignError
from harness.text import harmless

CHALLENGE = load_challenge()
IMAGE_ID = f"sha256:{'ab' * 32}"
IMAGES = {"epsilon:final": IMAGE_ID, "odd:id": "not-an-id"}
SETTLE_S = 10.0


def now_s() -> float:
    """Late enough for all that a test has just written to be complete."""
    return time.time() + 60


class Inbox:
    """A submissions folder, and the scans of one campaign."""

    def __init__(self, root: Path, policy: Policy | None = None) -> None:
        self.root = root
        self.contents_path = root.parent / "contents.json"
        self.policy = policy or Policy(settle_time=SETTLE_S)
        root.mkdir(exist_ok=True)
        self.restart()

    def restart(self) -> None:
        contents = Contents(self.contents_path, now_s)
        self.intake = Intake(self.root, self.policy, contents, CHALLENGE, IMAGES.get)

    def put(self, name: str, content: str = "content") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        return path

    def scan(self) -> Scan:
        return self.intake.scan(watching=False, now_s=now_s())

    def watch(self, at_s: float, *, may_read: bool = True) -> Scan:
        return self.intake.scan(watching=True, now_s=at_s, may_read=may_read)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "submissions")


def teams(scan: Scan) -> list[tuple[str, str]]:
    return sorted((one.upload.team, one.upload.entry) for one in scan.uploads)


def reasons(scan: Scan) -> dict[str, str]:
    return {one.entry: one.reason for one in scan.rejected}


def only(scan: Scan) -> Arrived:
    assert scan.rejected == ()
    (one,) = scan.uploads
    return one


def test_every_kind_of_entry(inbox: Inbox) -> None:
    for ending in (".tar", ".tar.gz", ".tgz", ".tar.zst"):
        inbox.put(f"archive{ending[1:].replace('.', '')}{ending}", ending)
    inbox.put("archivetar.json", "{}")  # what `harness export` writes beside an image
    inbox.put("gamma.ZIP")
    inbox.put("beta/Dockerfile")
    inbox.put("beta/team.yaml", "name: The Betas")
    inbox.put("delta/team.yaml", "team: four\nname: The Deltas")
    inbox.put("delta/first.tar", "1")
    inbox.put("delta/second.zip", "2")
    inbox.put("delta/third/Dockerfile", "3")
    inbox.put("epsilon.team.yaml", "image: epsilon:final\ntasks: [task_01]")
    inbox.put("zeta/team.yaml", "image: epsilon:final")
    scan = inbox.scan()
    assert scan.rejected == ()
    assert scan.waiting == ()
    assert sorted((one.upload.team, one.upload.kind) for one in scan.uploads) == [
        ("archivetar", UploadKind.ARCHIVE),
        ("archivetargz", UploadKind.ARCHIVE),
        ("archivetarzst", UploadKind.ARCHIVE),
        ("archivetgz", UploadKind.ARCHIVE),
        ("beta", UploadKind.FOLDER),
        ("epsilon", UploadKind.IMAGE),
        ("four", UploadKind.ARCHIVE),
        ("four", UploadKind.FIELDS),
        ("four", UploadKind.FOLDER),
        ("gamma", UploadKind.FIELDS),
        ("zeta", UploadKind.IMAGE),
    ]
    found = {one.upload.team: one for one in scan.uploads}
    assert found["beta"].info.display_name == "The Betas"
    assert found["four"].info.display_name == "The Deltas"
    image = found["epsilon"].upload
    assert (image.entry, image.path, image.sha256) == ("epsilon:final", None, IMAGE_ID)
    assert image.tasks == ("task_01",)
    archive = found["archivetar"].upload
    assert archive.path == inbox.root / "archivetar.tar"
    assert archive.size_bytes == 4
    assert found["epsilon"].notes == ("the same content as that of zeta",)


def test_a_folder_that_is_not_there_is_told(inbox: Inbox) -> None:
    inbox.root.rmdir()
    with pytest.raises(CampaignError, match="no such file or directory; expected a folder"):
        inbox.scan()


def test_names_that_come_to_one_team_are_nobodys(inbox: Inbox) -> None:
    inbox.put("Team A.tar", "1")
    inbox.put("team-a.tar", "2")
    inbox.put("other.tar", "3")
    scan = inbox.scan()
    assert teams(scan) == [("other", "other.tar")]
    told = "Team A.tar, team-a.tar all stand for the team team-a: say whose they are"
    assert [one.entry for one in scan.rejected] == ["Team A.tar", "team-a.tar"]
    assert all(one.reason.startswith(told) and one.team == "team-a" for one in scan.rejected)
    inbox.put("Team A.team.yaml", "team: team-a")
    assert teams(inbox.scan()) == [
        ("other", "other.tar"),
        ("team-a", "Team A.tar"),
        ("team-a", "team-a.tar"),
    ]


def test_an_upload_under_way_makes_a_name_ambiguous_too(inbox: Inbox) -> None:
    inbox.put("a.tar", "1")
    start_s = now_s()
    inbox.watch(start_s)
    inbox.put("A.tar", "2")
    scan = inbox.watch(start_s + SETTLE_S)
    assert set(reasons(scan)) == {"a.tar", "A.tar"}
    assert scan.uploads == ()


def test_one_name_with_two_endings_is_one_team(inbox: Inbox) -> None:
    inbox.put("alpha.tar", "1")
    inbox.put("alpha.zip", "2")
    inbox.put("alpha/more.tar", "3")
    inbox.put("alpha.team.yaml", "name: The Alphas")
    scan = inbox.scan()
    assert teams(scan) == [
        ("alpha", "alpha.tar"),
        ("alpha", "alpha.zip"),
        ("alpha", "alpha/more.tar"),
    ]
    assert {one.info.display_name for one in scan.uploads} == {"The Alphas"}


def test_the_same_twice_is_one_upload(inbox: Inbox) -> None:
    inbox.put("alpha/one.tar", "same")
    time.sleep(0.02)  # a tick of the file system's clock
    inbox.put("alpha/again.tar", "same")
    inbox.put("beta.tar", "same")
    scan = inbox.scan()
    assert teams(scan) == [("alpha", "alpha/one.tar"), ("beta", "beta.tar")]
    notes = {one.upload.team: one.notes for one in scan.uploads}
    assert notes["alpha"] == (
        "alpha/again.tar is the same once more",
        "the same content as that of beta",
    )


def test_renaming_makes_no_new_upload(inbox: Inbox) -> None:
    path = inbox.put("alpha/one.tar")
    before = only(inbox.scan()).upload
    path.rename(path.with_name("two.tar"))
    after = only(inbox.scan()).upload
    assert after.id == before.id
    assert after.entry == "alpha/two.tar"


def test_a_time_set_back_does_not_count(inbox: Inbox) -> None:
    before_s = time.time()
    path = inbox.put("alpha.tar")
    os.utime(path, (0, 0))
    folder = inbox.put("beta/Dockerfile").parent
    os.utime(folder / "Dockerfile", (0, 0))
    os.utime(folder, (0, 0))
    for one in inbox.scan().uploads:
        assert before_s - 1 <= one.upload.arrived_s <= time.time() + 1


def test_hostile_entries_are_told_one_by_one(inbox: Inbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.tar"
    secret.write_text("secret")
    root = inbox.root
    (root / "link.tar").symlink_to(secret)
    (root / "folder-link").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.tar")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket.tar"))
    inbox.put("a\nb.tar")
    inbox.put("red\x1b[31m.tar")
    inbox.put("gnp\u202etar.tar")
    inbox.put("x" * 200 + ".tar")
    inbox.put("notes.txt")
    inbox.put("team.yaml", "team: alpha")
    inbox.put("empty.tar", "")
    inbox.put("_calibration.tar")
    inbox.put("local.tar")
    inbox.put("北京.tar")
    inbox.put("badly/Dockerfile")
    (root / "badly" / "out").symlink_to("../../secret.tar")
    inbox.put("pipes/Dockerfile")
    os.mkfifo(root / "pipes" / "in")
    inbox.put("nothing/readme/text")
    inbox.put("lone.team.yaml", "name: Nobody")
    inbox.put("wrong.tar")
    inbox.put("wrong.team.yaml", "team: Wrong")
    inbox.put("absent.team.yaml", "image: nowhere:1")
    inbox.put("odd.team.yaml", "image: odd:id")
    inbox.put("linked.tar")
    (root / "linked.team.yaml").symlink_to(secret)
    (root / "docker" / "Dockerfile").mkdir(parents=True)
    with Path(os.fsdecode(os.fsencode(root) + b"/\xff.tar")).open("w") as file:
        file.write("x")
    inbox.put("good.tar", "good")
    scan = inbox.scan()
    assert teams(scan) == [("good", "good.tar")]
    assert scan.waiting == ()
    told = reasons(scan)
    expected = {
        "link.tar": "a link, which is not followed",
        "folder-link": "a link, which is not followed",
        "pipe.tar": "a pipe, a socket or a device",
        "socket.tar": "a pipe, a socket or a device",
        "a\\nb.tar": "characters that cannot be shown",
        "red\\x1b[31m.tar": "characters that cannot be shown",
        "gnp\\u202etar.tar": "characters that cannot be shown",
        shown_name("x" * 200 + ".tar"): "its name has 204 characters",
        "\\udcff.tar": "no UTF-8",
        "notes.txt": "no upload: expected .tar",
        "team.yaml": "belongs into a team's folder, or is to be called NAME.team.yaml",
        "empty.tar": "an empty file",
        "_calibration.tar": "the harness's own",
        "local.tar": "the harness's own",
        "北京.tar": "expected a name of 1 to 64 letters",
        "badly": "out in it: a link that leads out of the folder",
        "pipes": "in in it: a pipe",
        "nothing": "no Dockerfile in it, and no upload",
        "nothing/readme": "no Dockerfile in it",
        "lone.team.yaml": "a team file without `image:`",
        "wrong.tar": "team file: team: expected at most 64 lower-case",
        "absent.team.yaml": "image nowhere:1: expected one of this name here, found none",
        "odd.team.yaml": "expected an ID",
        "linked.tar": "team file: cannot be read",
        "linked.team.yaml": "a link, which is not followed",
        "docker": "Dockerfile in it: expected a file",
    }
    assert set(told) == set(expected)
    for entry, part in expected.items():
        assert part in told[entry], entry


def test_what_cannot_be_read_is_told(nobody_s_folder: Path) -> None:
    inbox = Inbox(nobody_s_folder / "submissions")
    inbox.put("alpha.tar").chmod(0)
    folder = inbox.put("beta/Dockerfile").parent
    folder.chmod(0)
    told = reasons(inbox.scan())
    folder.chmod(0o755)
    assert told == {
        "alpha.tar": "cannot be read (Permission denied)",
        "beta": "cannot be looked into (Permission denied)",
    }


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "submissions", Policy(image_size=1000))
    with (inbox.root / "alpha.tar").open("wb") as file:
        file.truncate(1 << 42)  # no disk here holds it, and reading it takes an hour
    with inbox.put("beta/Dockerfile").open("ab") as file:
        file.truncate(1 << 42)
    assert reasons(inbox.scan()) == {
        "alpha.tar": "size: expected at most 1000 B, found 4.0 TiB",
        "beta": "size: expected at most 1000 B, found 4.0 TiB",
    }


def test_the_organisers_have_the_last_word(tmp_path: Path) -> None:
    policy = Policy(
        teams={
            "alpha": TeamOverride.model_validate({"name": "A", "tasks": ["task_02"]}),
            "beta": TeamOverride(image="epsilon:final", contact="b@example.org"),
            "gamma": TeamOverride(image="nowhere:1"),
        }
    )
    inbox = Inbox(tmp_path / "submissions", policy)
    inbox.put("alpha.tar")
    inbox.put("alpha.team.yaml", "name: The Alphas\ncontact: a@example.org\ntasks: [task_01]")
    inbox.put("beta.tar")
    scan = inbox.scan()
    found = {one.upload.team: one for one in scan.uploads}
    alpha, beta = found["alpha"], found["beta"]
    assert (alpha.info.display_name, alpha.info.contact) == ("A", "a@example.org")
    assert alpha.upload.tasks == ("task_02",)
    assert (beta.upload.kind, beta.upload.entry) == (UploadKind.IMAGE, "epsilon:final")
    assert beta.info.contact == "b@example.org"
    assert reasons(scan) == {
        "beta.tar": "the campaign's file names an image for beta, in its place",
        "nowhere:1": "image nowhere:1: expected one of this name here, found none",
    }


def test_tasks_that_the_challenge_lacks_stop_the_campaign(tmp_path: Path) -> None:
    policy = Policy(teams={"alpha": TeamOverride(tasks=("task_9",))})
    with pytest.raises(CampaignError, match=r"teams\.alpha\.tasks"):
        Inbox(tmp_path / "submissions", policy)


def test_a_file_beside_the_name_of_an_image_counts(inbox: Inbox) -> None:
    inbox.put("alpha.tar")
    inbox.put("alpha.team.yaml", "image: epsilon:final")
    arrived = only(inbox.scan())
    assert arrived.upload.kind is UploadKind.ARCHIVE
    assert arrived.notes == ("image: left out, since there is a file",)


def test_what_changed_just_now_waits(inbox: Inbox) -> None:
    path = inbox.put("alpha.tar")
    changed_s = path.stat().st_ctime
    scan = inbox.intake.scan(watching=False, now_s=changed_s + 0.5)
    assert (scan.uploads, scan.waiting) == ((), ("alpha.tar",))
    assert only(inbox.intake.scan(watching=False, now_s=changed_s + 1.5))


def test_a_watched_upload_is_complete_when_it_is_quiet(inbox: Inbox) -> None:
    path = inbox.put("alpha.tar", "1")
    start_s = now_s()
    assert inbox.watch(start_s).waiting == ("alpha.tar",)
    with path.open("a") as file:
        file.write("2")
    assert inbox.watch(start_s + SETTLE_S).waiting == ("alpha.tar",)
    assert inbox.watch(start_s + 1.9 * SETTLE_S).waiting == ("alpha.tar",)
    scan = inbox.watch(start_s + 2 * SETTLE_S)
    assert only(scan).upload.size_bytes == 2
    assert scan.waiting == ()
    inbox.restart()  # what was read once is complete
    assert only(inbox.watch(start_s + 2 * SETTLE_S))


def test_a_clock_set_back_delays_and_loses_nothing(inbox: Inbox) -> None:
    inbox.put("alpha.tar", "1")
    start_s = now_s()
    inbox.watch(start_s)
    assert inbox.watch(start_s - 3600).waiting == ("alpha.tar",)
    assert only(inbox.watch(start_s - 3600 + SETTLE_S))


@pytest.mark.parametrize("ending", [".part", ".tmp", ".partial", ".crdownload", ".filepart"])
def test_an_upload_renamed_into_place_is_complete_at_once(inbox: Inbox, ending: str) -> None:
    path = inbox.put(f"alpha.tar{ending}")
    hidden = inbox.put(".beta/Dockerfile").parent
    start_s = now_s()
    assert inbox.watch(start_s) == Scan()
    path.rename(inbox.root / "alpha.tar")
    hidden.rename(inbox.root / "beta")
    assert teams(inbox.watch(start_s + 1)) == [("alpha", "alpha.tar"), ("beta", "beta")]


def test_what_grew_after_it_was_renamed_waits(inbox: Inbox) -> None:
    path = inbox.put("alpha.tar.part")
    start_s = now_s()
    inbox.watch(start_s)
    renamed = path.rename(inbox.root / "alpha.tar")
    with renamed.open("a") as file:
        file.write("more")
    assert inbox.watch(start_s + 1).waiting == ("alpha.tar",)


def test_nothing_is_read_while_it_would_disturb(inbox: Inbox) -> None:
    inbox.put("alpha.tar", "1")
    start_s = now_s()
    inbox.watch(start_s)
    assert only(inbox.watch(start_s + SETTLE_S))
    inbox.put("beta.tar", "2")
    inbox.watch(start_s + 2 * SETTLE_S, may_read=False)
    scan = inbox.watch(start_s + 3 * SETTLE_S, may_read=False)
    assert teams(scan) == [("alpha", "alpha.tar")]
    assert scan.waiting == ("beta.tar",)
    assert teams(inbox.watch(start_s + 3 * SETTLE_S))[-1] == ("beta", "beta.tar")


def test_a_folder_that_is_being_copied_is_not_taken_for_a_teams(inbox: Inbox) -> None:
    """A Dockerfile may come last: till then the folder looks like one that holds an upload."""
    inbox.put("alpha/weights.tar", "1")
    start_s = now_s()
    inbox.watch(start_s)
    inbox.put("alpha/method/plugin.py", "1")
    scan = inbox.watch(start_s + SETTLE_S)
    assert (scan.uploads, scan.rejected) == ((), ())
    assert scan.waiting == ("alpha/method", "alpha/weights.tar")
    inbox.put("alpha/Dockerfile")
    inbox.watch(start_s + 2 * SETTLE_S)
    arrived = only(inbox.watch(start_s + 3 * SETTLE_S))
    assert (arrived.upload.kind, arrived.upload.entry) == (UploadKind.FOLDER, "alpha")


def test_a_new_upload_in_a_teams_folder_leaves_the_others_alone(inbox: Inbox) -> None:
    inbox.put("alpha/one.tar", "1")
    start_s = now_s()
    inbox.watch(start_s)
    assert only(inbox.watch(start_s + SETTLE_S))
    inbox.put("alpha/two.tar", "2")
    scan = inbox.watch(start_s + SETTLE_S + 1)
    assert teams(scan) == [("alpha", "alpha/one.tar")]
    assert scan.waiting == ("alpha/two.tar",)


def test_a_team_file_that_is_mended_counts(inbox: Inbox) -> None:
    inbox.put("alpha.tar")
    inbox.put("alpha.team.yaml", "team: Beta")
    assert "alpha.tar" in reasons(inbox.scan())
    time.sleep(0.02)
    inbox.put("alpha.team.yaml", "team: beta")
    assert teams(inbox.scan()) == [("beta", "alpha.tar")]


@pytest.mark.parametrize(
    ("stem", "team"),
    [
        ("Team A", "team-a"),
        ("Müller Lab", "muller-lab"),
        ("a__b..c--d", "a__b..c--d"),
        ("--x--", "x"),
        ("ALPHA (final) v2", "alpha-final-v2"),
    ],
)
def test_a_name_comes_to_a_team(stem: str, team: str) -> None:
    assert slug(stem) == team


@given(stem=st.text())
def test_any_name_comes_to_a_proper_team_or_a_reason(stem: str) -> None:
    with suppress(ValueError):
        assert re.fullmatch(TEAM_PATTERN, slug(stem))
        assert slug(slug(stem)) == slug(stem)


_BYTES = st.binary(min_size=1, max_size=30) | st.text(min_size=1, max_size=30).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
_ENDINGS = st.sampled_from([b"", b".tar", b".zip", b".team.yaml", b".tar.gz", b".json", b".part"])


@settings(max_examples=150, deadline=None)
@given(
    entries=st.lists(
        st.tuples(_BYTES, _ENDINGS, st.sampled_from(["file", "folder", "link", "pipe", "built"])),
        max_size=6,
    )
)
def test_any_folder_is_scanned_and_journalled(entries: list[tuple[bytes, bytes, str]]) -> None:
    """What is seen goes into the journal as JSON, whatever names there are."""
    with tempfile.TemporaryDirectory() as place:
        inbox = Inbox(Path(place, "submissions"))
        for stem, ending, what in entries:
            with suppress(OSError, ValueError):  # no file can have this name, or one has it
                _make(os.fsencode(inbox.root) + b"/" + stem.replace(b"/", b"_") + ending, what)
        scan = inbox.scan()
        for one in scan.uploads:
            _is_journalled(UploadSeen(upload=one.upload, info=one.info))
            assert os.path.lexists(one.upload.path or "")
        for rejected in scan.rejected:
            _is_journalled(rejected)
            assert harmless(rejected.entry) == rejected.entry
            assert harmless(rejected.reason) == rejected.reason
        assert scan.waiting == ()


def _make(path: bytes, what: str) -> None:
    if os.path.lexists(path):
        return  # nobody reads a pipe, and whoever writes to it waits
    if what == "link":
        Path(os.fsdecode(path)).symlink_to("elsewhere")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "file":
        Path(os.fsdecode(path)).write_text("name: x")
    else:
        Path(os.fsdecode(path)).mkdir()
        inner = b"/Dockerfile" if what == "built" else b"/a.tar"
        Path(os.fsdecode(path + inner)).write_text("x")


def _is_journalled(event: UploadSeen | UploadRejected) -> None:
    line = Line(n=1, at="2026-01-01T00:00:00Z", event=event)
    assert Line.model_validate_json(line.model_dump_json()) == line

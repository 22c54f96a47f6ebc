"""What a hostile team hands in: it harms its own upload, and nobody else's."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from harness.campaign.bases import check_bases
from harness.campaign.content import Contents
from harness.campaign.intake import Intake
from harness.campaign.obtain import check_unchanged, check_untouched
from harness.campaign.order import Source
from harness.campaign.policy import Policy
from harness.campaign.team_file import parse_team_file
from harness.campaign.upload import UploadKind
from harness.challenge.model import load_challenge
from harness.cluster.parcel import Incoming, Manifest, PackedFile
from harness.errors import BuildError, CampaignError, MachineError, SubmissionError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.campaign.intake import Scan

CHALLENGE = load_challenge()

# What a parser or a formatter fails at with an exception of its own.
NUMBERS = {
    "hexadecimal": "0x" + "f" * 14_000,
    "base 60": "1" + ":1" * 7_000,
    "base 60, fraction": "1" + ":1" * 7_000 + ".5",
    "decimal beyond a float": "9" * 350,
    "decimal": "9" * 4_200,
    "infinite": ".inf",
    "no number": ".nan",
    "text beyond a float": '"' + "9" * 400 + 'TiB"',
    "text": '"' + "9" * 305 + 'B"',
}
PLACES = (
    "team: {}",
    "name: {}",
    "contact: {}",
    "tasks: [{}]",
    "image: {}",
    "resources: {{memory: {}}}",
    "resources: {{processes: {}}}",
    "resources: {{pair_time: {}}}",
    "resources: {{gpu: {}}}",
    "[{}]",
    "{}",
)
OTHERS = {
    "half of a surrogate pair as a key": '"\\ud800": 1',
    "one in resources": 'resources: {"\\ud800": 1}',
    "one as a name": 'name: "\\ud800"',
    "keys that are no text": "1: 2\nnull: 3\ntrue: 4\n2026-01-01: 5\n1.5: 6",
}


def scan(root: Path, images: dict[str, str] | None = None) -> Scan:
    intake = Intake(root, Policy(), Contents(None), CHALLENGE, (images or {}).get)
    return intake.scan(watching=False, now_s=time.time() + 60)


def take(text: str) -> None:
    """Taken or refused, and fit to be kept."""
    try:
        found = parse_team_file(text.encode(), CHALLENGE)
    except SubmissionError as error:
        str(error).encode()
    else:
        found.info.model_dump_json().encode()
        assert all(len(amount) <= 40 for _, amount in found.info.declared)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_no_number_in_a_team_file_stops_the_campaign(place: str, number: str) -> None:
    take(place.format(number))


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_no_key_of_a_team_file_stops_the_campaign(text: str) -> None:
    take(text)


def test_what_one_team_writes_leaves_the_others_theirs(tmp_path: Path) -> None:
    (tmp_path / "beta.tar").write_text("beta")
    (tmp_path / "evil.tar").write_text("evil")
    (tmp_path / "evil.team.yaml").write_text(f"name: {NUMBERS['hexadecimal']}")
    found = scan(tmp_path)
    assert "beta" in {one.upload.team for one in found.uploads}


@pytest.mark.parametrize(
    "name",
    [
        "l2r-campaign/beta:0123456789ab",
        "docker.io/l2r-campaign/beta:0123456789ab",
        "index.docker.io/l2r-import/beta:0123456789ab",
        "docker.io/library/l2r-base:latest",
        "library/l2r_submission",
        "localhost/l2r-import/beta:0123456789ab",
        "ab",
        "1a5e",
        "0123456789a",
        "sha256:1a5e",
    ],
)
def test_no_team_names_another_teams_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil.team.yaml").write_text(f'image: "{name}"')
    found = scan(tmp_path, {name: f"sha256:{'ab' * 32}"})
    assert found.uploads == ()
    assert "the harness's names" in found.rejected[0].reason


def test_a_name_like_an_id_is_taken_with_its_tag(tmp_path: Path) -> None:
    (tmp_path / "cafe.team.yaml").write_text("image: cafe:latest")
    found = scan(tmp_path, {"cafe:latest": f"sha256:{'ab' * 32}"})
    assert [one.upload.team for one in found.uploads] == ["cafe"]


def test_who_takes_another_teams_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "beta.tar").write_text("beta")
    (tmp_path / "evil.tar").write_text("evil")
    (tmp_path / "evil.team.yaml").write_text("team: beta")
    notes = {one.upload.entry: one.notes for one in scan(tmp_path).uploads}
    assert notes["beta.tar"] == ()
    assert "says that it is beta's, as the name of beta.tar does" in notes["evil.tar"][0]


def test_a_team_with_one_file_under_another_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "final-v2.tar").write_text("beta")
    (tmp_path / "final-v2.team.yaml").write_text("team: beta")
    assert [one.notes for one in scan(tmp_path).uploads] == [()]


FOREIGN = {
    "name": "FROM l2r-campaign/beta:0123456789ab",
    "registry": "from docker.io/l2r-import/beta:0123456789ab AS x",
    "ID": "FROM 1a5e",
    "whole ID": "FROM sha256:1a5e9c9242f5",
    "argument": "ARG A=l2r\nFROM ${A}-campaign/beta:0123456789ab",
    "default": "FROM ${A:-l2r-campaign/beta}:0123456789ab",
    "form that is not understood": "ARG A=x\nFROM ${A:+l2r-campaign/beta:0123456789ab}",
    "two lines": "FROM \\\n# nothing\n  l2r-campaign/beta:0123456789ab",
    "other escape": "# escape=`\nFROM `\nl2r-campaign/beta:0123456789ab",
    "hidden behind a backtick": "FROM debian:12\nRUN echo `\nFROM l2r-campaign/beta:0123456789ab",
    "copied": "FROM debian:12\nCOPY --from=l2r-import/beta:0123456789ab /weights /",
    "copied, other flag first": "FROM debian:12\nCOPY --chown=0 --from=1a5e /weights /",
    "mounted": "FROM debian:12\nRUN --mount=type=bind,from=l2r-import/beta:01,target=/x true",
    "run": "FROM l2r_submission",
}
OWN = {
    "public": "FROM python:3.11-slim",
    "base": "ARG BASE_IMAGE=debian:12\nFROM ${BASE_IMAGE}",
    "harness's base": "FROM l2r-base",
    "own argument": "ARG TAG=3.11\nFROM python:${TAG}",
    "stages": "FROM debian:12 AS cafe\nFROM cafe\nCOPY --from=0 /a /a\nCOPY --from=Cafe /b /b",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_no_dockerfile_builds_on_another_teams_image(tmp_path: Path, text: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    with pytest.raises(BuildError, match="another team's image"):
        check_bases(tmp_path, "l2r-base")


@pytest.mark.parametrize("text", OWN.values(), ids=OWN)
def test_what_a_dockerfile_may_build_on(tmp_path: Path, text: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    check_bases(tmp_path, "l2r-base")
    check_bases(tmp_path, None)


def test_an_upload_that_was_another_for_a_moment(tmp_path: Path) -> None:
    path, aside = tmp_path / "evil.tar", tmp_path / "aside"
    path.write_text("shown")
    source = Source(
        kind=UploadKind.ARCHIVE,
        entry="evil.tar",
        path=path,
        sha256=f"sha256:{hashlib.sha256(b'shown').hexdigest()}",
    )
    stamp = check_unchanged(source)
    check_untouched(source, stamp)
    path.rename(aside)
    path.write_text("used!")
    aside.replace(path)
    check_unchanged(source)
    with pytest.raises(CampaignError, match="taken up"):
        check_untouched(source, stamp)


def test_a_pipe_in_the_place_of_an_upload_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "evil.tar")
    source = Source(
        kind=UploadKind.ARCHIVE,
        entry="evil.tar",
        path=tmp_path / "evil.tar",
        sha256=f"sha256:{hashlib.sha256(b'shown').hexdigest()}",
    )
    with pytest.raises(CampaignError, match="taken up"):
        check_unchanged(source)


EMPTY = f"sha256:{hashlib.sha256().hexdigest()}"


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("x" * 256, EMPTY),
        ("a/" + "\u00e9" * 128, EMPTY),
        ("\ud800", EMPTY),
        ("../x", EMPTY),
        ("/etc/x", EMPTY),
        ("a", f"sha256:{'0' * 64}"),
    ],
    ids=["long", "long in bytes", "surrogate", "above", "absolute", "digest of nothing"],
)
def test_a_list_that_lies_is_the_machines_fault_and_leaves_nothing(
    tmp_path: Path, name: str, digest: str
) -> None:
    manifest = Manifest(files=(PackedFile(name=name, size_bytes=0, sha256=digest),))
    with pytest.raises(MachineError), Incoming(tmp_path / "team" / "run", manifest):
        raise AssertionError("taken")
    assert not list(tmp_path.glob("team/.incoming-*"))

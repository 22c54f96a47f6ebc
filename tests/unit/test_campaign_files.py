"""campaign.yaml and team.yaml: what is right is taken, all that is wrong is told."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.policy import Calibration, Counted, Exclusive, Policy, TeamOverride
from harness.campaign.policy_file import check_tasks, load_policy
from harness.campaign.team_file import (
    MAX_FILE_BYTES,
    Resources,
    TeamFile,
    parse_team_file,
    read_team_file,
)
from harness.challenge.model import load_challenge
from harness.errors import CampaignError, SubmissionError
from harness.text import harmless

CHALLENGE = load_challenge()
DOCUMENT = Path(__file__).parents[2] / "docs" / "campaign-files.md"


def policy_of(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "campaign.yaml"
    path.write_text(text, "utf-8")
    return load_policy(path)


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    assert load_policy(None) == Policy() == policy_of(tmp_path, "# nothing yet\n")


def test_every_key_of_a_campaign(tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path,
        """
schema_version: 1
title: Learn2Reg, the night run
order: [beta, alpha]
seed: 7
teams:
  alpha: {name: The Alphas, contact: a@example.org, tasks: [task_01]}
  beta: {image: "beta:final"}
  gamma: {drop: withdrew}
counted: best
uploads_per_day: 3
machine_retries: 1
suspect_reruns: 0
exclusive: gpu
calibration: {source: null, every: 3, threshold: 0.05}
settle_time: 1min
poll_time: 2s
image_size: 20GiB
after_each: [make, site]
""",
    )
    alpha, beta, gamma = (policy.teams[name] for name in ("alpha", "beta", "gamma"))
    assert (policy.title, policy.order) == ("Learn2Reg, the night run", ("beta", "alpha"))
    assert (policy.seed, policy.uploads_per_day) == (7, 3)
    assert (alpha.display_name, alpha.contact) == ("The Alphas", "a@example.org")
    assert (alpha.tasks, beta.image, gamma.drop) == (("task_01",), "beta:final", "withdrew")
    assert (policy.counted, policy.exclusive) == (Counted.BEST, Exclusive.GPU)
    assert (policy.machine_retries, policy.suspect_reruns) == (1, 0)
    assert policy.calibration == Calibration(source=None, every=3, threshold=0.05)
    assert (policy.settle_time_s, policy.poll_time_s) == (60.0, 2.0)
    assert policy.image_size_bytes == 20 << 30
    assert policy.after_each == ("make", "site")


def test_all_that_is_wrong_with_a_campaign_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CampaignError) as told:
        policy_of(
            tmp_path,
            """
ordr: [alpha]
counted: bst
uploads_per_day: 0
order: [alpha, alpha]
poll_time: 0
image_size: large
teams:
  Alpha: {}
  local: {contct: somebody}
""",
        )
    assert told.value.exit_code == 15
    lines = str(told.value)
    assert lines.startswith(f"campaign file {tmp_path / 'campaign.yaml'}:")
    for part in (
        "ordr: unknown key; did you mean 'order'?",
        "counted: expected 'latest' or 'best', found 'bst'; did you mean 'best'?",
        "uploads_per_day: expected more than or equal to 1, found 0",
        "order: expected every team once, found alpha twice",
        "poll_time: expected more than 0, found 0",
        "image_size: expected a number with a unit",
        "teams.Alpha: expected at most 64 lower-case letters",
        "teams.local.contct: unknown key; did you mean 'contact'?",
    ):
        assert part in lines


def test_no_team_has_the_name_that_dry_runs_are_kept_under(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="teams: expected other names than 'local'"):
        policy_of(tmp_path, "teams: {local: {drop: why}}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a list", "expected keys such as order, teams and counted, found a list"),
        ("seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("seed: [", "not valid YAML"),
        ("title: 2026-99-99", "not valid YAML: a value in"),
    ],
)
def test_what_is_no_campaign_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CampaignError, match=told):
        policy_of(tmp_path, text)


def test_a_campaign_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="no such file"):
        load_policy(tmp_path / "absent.yaml")
    (tmp_path / "campaign.yaml").write_bytes(b"title: \xff")
    with pytest.raises(CampaignError, match="expected a YAML file in UTF-8"):
        load_policy(tmp_path / "campaign.yaml")


def test_tasks_that_the_challenge_lacks_are_told() -> None:
    policy = Policy(teams={"alpha": TeamOverride(tasks=("task_01", "task_1"))})
    with pytest.raises(CampaignError, match=r"teams.alpha.tasks: .*did you mean 'task_01'"):
        check_tasks(policy, CHALLENGE)
    check_tasks(Policy(), CHALLENGE)


def test_every_key_of_a_team() -> None:
    said = parse_team_file(
        """
team: alpha
name: Die Ähren
contact: a@example.org
tasks: [task_02, task_01, task_02]
image: registry.example.org/alpha/net:v2
resources: {memory: 2GiB, gpu: yes, gpu_memory: 10GB, pair_time: 10s, processes: 4}
""".encode(),
        CHALLENGE,
    )
    assert (said.team, said.image) == ("alpha", "registry.example.org/alpha/net:v2")
    assert (said.info.display_name, said.info.contact) == ("Die Ähren", "a@example.org")
    assert said.tasks == ("task_02", "task_01")
    assert said.info.declared == (
        ("memory", "2.0 GiB"),
        ("processes", "4"),
        ("pair_time", "10 s"),
        ("gpu", "yes"),
        ("gpu_memory", "9.3 GiB"),
    )
    assert said.notes == ()


@pytest.mark.parametrize("raw", [b"", b"# nothing\n", b"{}", b"---\n"])
def test_a_team_may_say_nothing(raw: bytes) -> None:
    assert parse_team_file(raw, CHALLENGE) == TeamFile()


def test_more_than_the_limits_is_told_and_not_given() -> None:
    said = parse_team_file(b"resources: {memory: 900GiB, pair_time: 1h}", CHALLENGE)
    given_gib = CHALLENGE.limits.memory_bytes / (1 << 30)
    pair_time_s = CHALLENGE.limits.pair_time_s
    gives = "and the challenge gives"
    assert said.notes == (
        f"resources.memory: asks for 900.0 GiB, {gives} {given_gib:.1f} GiB",
        f"resources.pair_time: asks for 3600 s, {gives} {pair_time_s:.10g} s",
    )


def test_what_decides_nothing_may_be_wrong() -> None:
    said = parse_team_file(
        b"team: alpha\ncontct: x\nname: [a]\nresources: {memory: lots, gpu: 1}", CHALLENGE
    )
    assert said.team == "alpha"
    assert said.info.declared == ()
    assert said.info.display_name is None
    assert any("contct: unknown key; did you mean 'contact'?; left out" in n for n in said.notes)
    assert any(note.startswith("resources.memory: ") for note in said.notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("team: Alpha", "team: expected at most 64 lower-case letters"),
        ("team: _calibration", "team: expected at most 64 lower-case letters"),
        ("team: ../alpha", "team: expected at most 64 lower-case letters"),
        ("team: local", "expected another name than 'local'"),
        ("team: 7", "team: expected"),
        ("tasks: []", "tasks: expected to have at least 1 item"),
        ("tasks: task_01", "tasks: expected"),
        ("tasks: [task_1]", "tasks: expected tasks of .* did you mean 'task_01'"),
        ("image: --privileged", "image: expected the name of an image"),
        ("image: l2r-import/other:1", "which only the campaign's file may use"),
        ("image: l2r_submission", "which only the campaign's file may use"),
        (f"image: sha256:{'0' * 64}", "which only the campaign's file may use"),
        ("image: 0123456789ab", "which only the campaign's file may use"),
        ("- alpha", "expected keys such as team, name and tasks, found a list"),
        ("a: &x 1\nb: *x", "found an anchor or an alias"),
        ("name: !!python/object/apply:os.system [ls]", "found a tag"),
        ("name: !!bool perhaps", "found a tag"),
        ("name: 2026-99-99", "not valid YAML"),
        (f"name: {'9' * 5000}", "not valid YAML"),
        ("name: [", "not valid YAML"),
        ("team: a\nteam: b", "stands twice"),
        ("[" * 16000, "expected at most 8 lists and mappings in each other"),
        ("a: " * 5000, "not valid YAML"),
        ("name: \x1b[31m", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_what_decides_must_be_right(text: str, told: str) -> None:
    before_s = time.monotonic()
    with pytest.raises(SubmissionError, match=told) as error:
        parse_team_file(text.encode(), CHALLENGE)
    assert harmless(str(error.value)) == str(error.value)
    assert len(str(error.value)) < 1000
    assert time.monotonic() - before_s < 5


def test_a_file_that_could_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(SubmissionError, match=r"expected at most 16.0 KiB, found more"):
        read_team_file(tmp_path, PurePosixPath("team.yaml"), CHALLENGE)


def test_a_bomb_of_aliases_is_refused() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    with pytest.raises(SubmissionError, match="an anchor or an alias"):
        parse_team_file(bomb.encode(), CHALLENGE)


_KEYS = (
    st.sampled_from(["team", "name", "contact", "tasks", "resources", "image", "[key]"])
    | st.text()
    | st.none()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.dates()
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(content=st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_any_yaml_is_a_team_file_or_a_message_to_show(
    content: dict[object, object],
) -> None:
    _is_shown(yaml.safe_dump(content, allow_unicode=True).encode())


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=200) | st.text("{}[]:,&*!#'\"-\n abc<>|%@`?=", max_size=60).map(
    str.encode
))  # fmt: skip
def test_any_bytes_are_a_team_file_or_a_message_to_show(raw: bytes) -> None:
    _is_shown(raw)


def _is_shown(raw: bytes) -> None:
    try:
        said = parse_team_file(raw, CHALLENGE)
    except SubmissionError as error:
        texts = [str(error)]
    else:
        info = said.info
        texts = [text for text in (info.display_name, info.contact, said.image) if text is not None]
        texts += said.notes
    assert [harmless(text) for text in texts] == texts


def test_the_document_has_every_key() -> None:
    text = DOCUMENT.read_text("utf-8")
    for model in (Policy, TeamOverride, Calibration, Resources):
        for name, described in model.model_fields.items():
            key = described.alias or name
            assert f"`{key}`" in text or f"`...{key}`" in text, f"{model.__name__}.{name}"
    for key in ("team", "name", "contact", "tasks", "resources", "image"):
        assert f"`{key}`" in text

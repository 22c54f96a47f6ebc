"""The challenge file: what the built-in edition says, what is refused, what can be expressed."""

from __future__ import annotations

import functools
import operator
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.challenge.model import (
    Challenge,
    Metric,
    PairsCsv,
    builtin_names,
    load_challenge,
    parse_challenge,
)
from harness.challenge.quantity import format_bytes, parse_bytes, parse_seconds
from harness.errors import ChallengeError
from tests.tiny import YAML, tiny_challenge, write_challenge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Content = dict[str, Any]


def tiny_content() -> Content:
    content: Content = yaml.safe_load(YAML)
    return content


def refusal(change: Callable[[Content], object]) -> str:
    """What parse_challenge says of the tiny challenge after ``change``."""
    content = tiny_content()
    change(content)
    with pytest.raises(ChallengeError) as caught:
        parse_challenge(yaml.safe_dump(content), origin="tiny.yaml")
    message = str(caught.value)
    assert "tiny.yaml" in message
    return message


def accepted(change: Callable[[Content], object]) -> Challenge:
    content = tiny_content()
    change(content)
    return parse_challenge(yaml.safe_dump(content), origin="tiny.yaml")


# --- The built-in edition -----------------------------------------------------------------------

TABLE = {
    "task_01": ((192, 160, 192), (3, 96, 80, 96)),
    "task_02": ((192, 192, 208), (3, 96, 96, 104)),
    "task_03": ((160, 192, 224), (3, 80, 96, 112)),
}


@pytest.mark.parametrize(("name", "image_grid", "shape"), [(n, *row) for n, row in TABLE.items()])
def test_learn2reg_2021_grids(
    name: str, image_grid: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    task = load_challenge("learn2reg2021").task(name)
    assert task.image_grid == image_grid
    assert task.field.shape == shape
    assert task.field.grid == shape[1:]
    assert task.field.dtype == "float16"
    assert task.field.nbytes == 2 * 3 * shape[1] * shape[2] * shape[3]
    assert task.field.resolution == "half"


def test_learn2reg_2021_is_the_default_and_has_these_tasks_in_this_order() -> None:
    challenge = load_challenge()
    assert challenge.name == "learn2reg2021"
    assert "learn2reg2021" in builtin_names()
    assert [task.name for task in challenge.tasks] == list(TABLE)
    for task in challenge.tasks:
        assert str(task.folder) == task.name
        assert task.pairs.path == f"{task.name}/pairs_val.csv"
        assert isinstance(task.pairs, PairsCsv)
        assert (task.pairs.fixed_column, task.pairs.moving_column) == ("fixed", "moving")
        name = task.field.path.format(fixed=1, moving=23)
        assert name == f"{task.name}/disp_0001_0023.npz"


def test_learn2reg_2021_contract() -> None:
    container = load_challenge().container
    mounts = {mount.source: (mount.target, mount.path) for mount in container.mounts}
    assert mounts == {"data": ("/l2r/test", "."), "output": ("/l2r/submission", ".")}
    assert container.arguments == ()
    assert container.environment == {}


@pytest.mark.parametrize(
    ("name", "fixed", "moving"),
    [
        ("task_01", "task_01/img0012_tcia_MR.nii.gz", "task_01/img0012_tcia_CT.nii.gz"),
        ("task_02", "task_02/case_012_exp.nii.gz", "task_02/case_012_insp.nii.gz"),
        ("task_03", "task_03/img0012.nii.gz", "task_03/img0012.nii.gz"),
    ],
)
def test_learn2reg_2021_file_names(name: str, fixed: str, moving: str) -> None:
    task = load_challenge().task(name)
    assert task.images is not None
    assert task.images.fixed.format(fixed=12, moving=12) == fixed
    assert task.images.moving.format(fixed=12, moving=12) == moving
    assert set(task.auxiliary) == {"fixed_mask", "moving_mask"}
    assert not any(file.required for file in task.auxiliary.values())


def test_learn2reg_2021_metrics_and_labels() -> None:
    first, second, third = load_challenge().tasks
    organs = (Metric.DICE, Metric.DICE30, Metric.HD95, Metric.SDLOGJ)
    assert first.metrics == third.metrics == organs
    assert second.metrics == (Metric.TRE, Metric.TRE30, Metric.SDLOGJ)
    assert first.truth.labels == tuple(range(1, 5))
    assert third.truth.labels == tuple(range(1, 36))
    assert second.truth.fixed_landmarks is not None


def test_deadline_grows_with_the_pairs() -> None:
    limits = tiny_challenge().limits
    assert limits.deadline_s(0) == 60
    assert limits.deadline_s(3) == 90


# --- Files that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "misspelt", "meant"),
    [
        (("limits",), "memmory", "memory"),
        (("limits",), "pair_tme", "pair_time"),
        ((), "task", "tasks"),
        (("container",), "mount", "mounts"),
        (("tasks", 0), "image_gird", "image_grid"),
        (("tasks", 0, "field"), "resolutoin", "resolution"),
        (("tasks", 0, "field"), "other_path", "other_paths"),
        (("tasks", 0, "auxiliary", "fixed_mask"), "requird", "required"),
        (("tasks", 1, "pairs"), "fixed_colum", "fixed_column"),
        (("container", "mounts", 0), "trgaet", "target"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest(
    place: tuple[Any, ...], misspelt: str, meant: str
) -> None:
    def misspell(content: Content) -> None:
        functools.reduce(operator.getitem, place, content)[misspelt] = "8GiB"

    message = refusal(misspell)
    key = ".".join(str(part) for part in (*place, misspelt))
    assert f"{key}: unknown key; did you mean {meant!r}?" in message


def test_unknown_key_like_no_other_is_told_the_known_ones() -> None:
    message = refusal(lambda c: c.update(zzzzzz=1))
    assert "zzzzzz: unknown key; known here are schema_version, name, title," in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("place", "key", "known"),
    [
        (("tasks", 0, "field"), "fixed", "path, other_paths, format,"),  # a key of images
        (("limits",), "tasks", "memory, shared_memory,"),
        (("tasks", 0, "pairs"), "lists", "format, path, fixed_column, moving_column"),
    ],
)
def test_key_of_another_place_is_not_proposed(place: tuple[Any, ...], key: str, known: str) -> None:
    message = refusal(lambda c: functools.reduce(operator.getitem, place, c).update({key: 1}))
    where = ".".join(str(part) for part in (*place, key))
    assert f"{where}: unknown key; known here are {known}" in message


def test_kind_of_list_decides_which_keys_are_known() -> None:
    pairs = {"format": "dataset_json", "path": "x.json", "list": ["a"]}
    message = refusal(lambda c: c["tasks"][0].update(pairs=pairs))
    assert "tasks.0.pairs.list: unknown key; did you mean 'lists'?" in message


@pytest.mark.parametrize(
    ("place", "key", "value", "told"),
    [
        (("tasks", 0, "field"), "dtype", "flaot16", "found 'flaot16'; did you mean 'float16'?"),
        (("tasks", 0, "field"), "format", "nift", "found 'nift'; did you mean 'nifti'?"),
        (("tasks", 0, "field"), "layout", "channel_last", "did you mean 'channels_last'?"),
        (("tasks", 0), "metrics", ["dise"], "found 'dise'; did you mean 'dice'?"),
        (("tasks", 0, "pairs"), "format", "cvs", "found 'cvs'; did you mean 'csv'?"),
        (("tasks", 0, "field"), "resolution", "quarter", "or 'half', found 'quarter'"),
        (("container", "mounts", 0), "source", "dat", "found 'dat'; did you mean 'data'?"),
        (("limits",), "processes", 0, "expected more than 0, found 0"),
        (("tasks", 0), "image_grid", [16, 12], "expected a value, found none"),
        (("tasks", 0), "image_grid", 16, "expected a valid list, found 16"),
        ((), "tasks", [], "expected to have at least 1 item, found []"),
        ((), "schema_version", 2, "expected 1, found 2"),
        (("tasks", 0, "images"), "fixed", "{fixd:04d}.nii", "did you mean 'fixed'?"),
        (("tasks", 0, "images"), "fixed", {"fixed": None}, "braces needs quotes around it"),
        (("tasks", 0), "name", "task 1", "a letter or digit first, found 'task 1'"),
        (("container", "mounts", 0), "target", "in", "without colon and comma, found 'in'"),
        (("limits",), "memory", 0, "expected more than 0, found 0"),
        (("limits",), "memory", -1, "expected more than 0, found -1"),
        (("limits",), "memory", "-1GiB", "expected more than 0, found '-1GiB'"),
        (
            ("limits",),
            "shared_memory",
            "3GiB",
            "memory, 2.0 GiB, towards which it counts, found 3.0 GiB",
        ),
    ],
)
def test_value_that_cannot_be_says_expected_and_found(
    place: tuple[Any, ...], key: str, value: object, told: str
) -> None:
    message = refusal(lambda c: functools.reduce(operator.getitem, place, c).update({key: value}))
    (finding,) = [line for line in message.splitlines() if line.startswith("  - ")]
    assert finding.removeprefix("  - ").startswith(".".join(map(str, (*place, key))))
    assert told in finding


@pytest.mark.parametrize("role", ["fixd_mask", "Fixed_Mask", "moving-mask", "moving_masks"])
def test_role_that_is_nearly_a_mask(role: str) -> None:
    """It would reach no plugin as a mask, in silence."""
    mask = {"path": "mask{fixed:04d}.nii.gz"}
    message = refusal(lambda c: c["tasks"][0].update(auxiliary={role: mask}))
    assert f"tasks.0.auxiliary: the role {role!r} is no mask for a plugin; did you mean" in message


@pytest.mark.parametrize("role", ["fixed_labels", "moving_keypoints", "fixed_lung_mask", "mask"])
def test_role_of_its_own(role: str) -> None:
    mask = {"path": "mask{fixed:04d}.nii.gz"}
    assert (
        role in accepted(lambda c: c["tasks"][0].update(auxiliary={role: mask})).tasks[0].auxiliary
    )


def test_only_task_that_is_wrong_is_no_missing_task() -> None:
    """The list without its refused items once counted as too short, a second and false finding."""

    def break_the_only_task(content: Content) -> None:
        del content["tasks"][1]
        content["tasks"][0]["field"]["dtype"] = "int8"

    message = refusal(break_the_only_task)
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == ["  - tasks.0.field.dtype"]


def test_missing_key_is_named() -> None:
    assert "tasks.0.field: expected this key, found none" in refusal(
        lambda c: c["tasks"][0].pop("field")
    )


def test_misspelt_name_of_a_built_in_challenge() -> None:
    with pytest.raises(ChallengeError, match=r"did you mean 'lumir2024'\?"):
        load_challenge("lumir")


def test_all_findings_are_listed_at_once() -> None:
    def break_three(content: Content) -> None:
        content["limits"]["memory"] = "lots"
        content["tasks"][0]["field"]["dtype"] = "int8"
        del content["title"]

    message = refusal(break_three)
    assert "limits.memory:" in message
    assert "tasks.0.field.dtype:" in message
    assert "title:" in message


@pytest.mark.parametrize(
    "pattern",
    [
        "/etc/passwd",
        "../img{fixed:04d}.nii.gz",
        "task_01/../../img{fixed:04d}.nii.gz",
        "task_01/..",
        "{fixed:/>6d}",
    ],
)
def test_pattern_that_leaves_the_folder(pattern: str) -> None:
    message = refusal(lambda c: c["tasks"][0]["images"].update(fixed=pattern))
    assert "tasks.0.images.fixed: expected a path inside the folder" in message
    assert repr(pattern) in message


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("img{case:04d}.nii.gz", "{case}"),
        ("img{}.nii.gz", "{}"),
        ("img{0}.nii.gz", "{0}"),
        ("img{fixed.__class__}.nii.gz", "{fixed.__class__}"),
        ("img{fixed[0]}.nii.gz", "{fixed[0]}"),
    ],
)
def test_pattern_with_an_unknown_placeholder(pattern: str, found: str) -> None:
    message = refusal(lambda c: c["tasks"][0]["images"].update(fixed=pattern))
    assert f"uses {found}; known are {{fixed}} and {{moving}}" in message


@pytest.mark.parametrize(
    "pattern",
    [
        *("img{fixed", "img}.nii", "img{fixed:zz}.nii", "{fixed!r:04d}", "{fixed:{width}d}"),
        "{fixed_name:04d}.nii",
    ],
)
def test_pattern_that_is_none(pattern: str) -> None:
    message = refusal(lambda c: c["tasks"][0]["images"].update(fixed=pattern))
    assert "tasks.0.images.fixed" in message
    assert re.search(
        "is not a valid pattern: (its braces do not match|numbers are written like {fixed:04d})",
        message,
    )


@pytest.mark.parametrize("pattern", ["task_01/disp.npz", "task_01/disp_{fixed:04d}.npz"])
def test_field_pattern_that_gives_several_pairs_one_file(pattern: str) -> None:
    message = refusal(lambda c: c["tasks"][0]["field"].update(path=pattern))
    assert "tasks.0.field.path" in message
    assert "{moving}" in message


@pytest.mark.parametrize(
    ("shape", "resolution"),
    [
        ([3, 16, 12, 20], "half"),
        ([3, 8, 6, 10], "full"),
        ([8, 6, 10, 3], "half"),
        ([2, 8, 6, 10], "half"),
        ([3, 10, 6, 8], "half"),
    ],
)
def test_field_shape_must_fit_the_image_grid(shape: list[int], resolution: str) -> None:
    message = refusal(lambda c: c["tasks"][0]["field"].update(shape=shape, resolution=resolution))
    wanted = (3, 8, 6, 10) if resolution == "half" else (3, 16, 12, 20)
    assert f"task task_01: a {resolution}-resolution field of image grid (16, 12, 20)" in message
    assert f"has shape {wanted}, found {tuple(shape)}" in message


@pytest.mark.parametrize("grid", [[16, 12], [16, 12, 0], [16, 12, -20], [16, 12, 20, 1]])
def test_image_grid_must_be_three_counts(grid: list[int]) -> None:
    assert "tasks.0.image_grid" in refusal(lambda c: c["tasks"][0].update(image_grid=grid))


def test_two_output_mounts() -> None:
    second = {"source": "output", "target": "/l2r/more"}
    message = refusal(lambda c: c["container"]["mounts"].append(second))
    assert "container.mounts: expected exactly one mount with source: output" in message


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ({"source": "data", "path": "img{fixed}.nii", "target": "/a"}, "name one file or folder"),
        ({"source": "data", "path": "../secret", "target": "/a"}, "a path inside the folder"),
        ({"source": "data", "target": "/l2r/test/"}, "found /l2r/test twice"),
    ],
)
def test_mount_that_cannot_be(mount: Content, told: str) -> None:
    message = refusal(lambda c: c["container"]["mounts"].append(mount))
    assert "container.mounts" in message
    assert told in message


def test_output_is_mounted_whole() -> None:
    message = refusal(lambda c: c["container"]["mounts"][1].update(path="fields"))
    assert "container.mounts.1: path is for source: data" in message


def test_no_output_mount() -> None:
    message = refusal(lambda c: c["container"]["mounts"].pop())
    assert "expected exactly one mount with source: output" in message


@pytest.mark.parametrize("target", ["l2r/output", "/l2r:ro", "/l2r,readonly", "/"])
def test_mount_target_must_be_a_plain_absolute_path(target: str) -> None:
    message = refusal(lambda c: c["container"]["mounts"][0].update(target=target))
    assert "container.mounts.0.target" in message


def test_duplicate_task_names() -> None:
    message = refusal(lambda c: c["tasks"][1].update(name="task_01"))
    assert "task task_01 is described twice" in message


@pytest.mark.parametrize("name", ["../task", "task 1", "", "-task", "task/1"])
def test_task_name_must_be_safe_in_a_path(name: str) -> None:
    assert "tasks.0.name" in refusal(lambda c: c["tasks"][0].update(name=name))


def test_no_tasks() -> None:
    assert "tasks" in refusal(lambda c: c.update(tasks=[]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory", "8 parsecs"),
        ("memory", "8"),
        ("memory", True),
        ("memory", None),
        ("pair_time", "10GiB"),
        ("pair_time", "soon"),
        ("output_size", "1e3MB"),
    ],
)
def test_bad_quantity(key: str, value: object) -> None:
    message = refusal(lambda c: c["limits"].update({key: value}))
    assert f"limits.{key}: expected a number with a unit" in message
    assert repr(value) in message


@pytest.mark.parametrize("text", ["a: [", "\tx: 1", "a: b: c", "&a *b", "\x00"])
def test_no_yaml(text: str) -> None:
    with pytest.raises(ChallengeError, match=r"challenge odd\.yaml: not valid YAML"):
        parse_challenge(text, origin="odd.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "an empty file"), ("- a", "a list"), ("7", "a number"), ("hello", "a text")],
)
def test_yaml_that_is_no_mapping(text: str, found: str) -> None:
    with pytest.raises(ChallengeError, match=f"found {found}"):
        parse_challenge(text, origin="odd.yaml")


def test_yaml_cannot_build_objects() -> None:
    with pytest.raises(ChallengeError, match="not valid YAML"):
        parse_challenge("!!python/object/apply:os.getcwd []", origin="odd.yaml")


def test_key_that_stands_twice_is_refused_with_its_line() -> None:
    """YAML takes the last and says nothing, so a limit would not apply."""
    text = YAML.replace("limits:\n", "limits:\n  memory: 1GiB\n")
    with pytest.raises(ChallengeError) as caught:
        parse_challenge(text, origin="twice.yaml")
    assert "the key 'memory' stands twice" in str(caught.value)
    line = text.splitlines().index("  memory: 2GiB") + 1
    assert f'in "twice.yaml", line {line}' in str(caught.value)


@pytest.mark.parametrize(
    "line", ["fixed: {fixed:04d}.nii.gz", "p: {path: img{fixed}.nii}", "- {moving_name}.nii.gz"]
)
def test_pattern_without_quotes_that_is_no_yaml(line: str) -> None:
    with pytest.raises(ChallengeError, match="Put a text with braces into quotes") as caught:
        parse_challenge(f"a:\n  {line}\n", origin="bare.yaml")
    assert 'in "bare.yaml", line 2' in str(caught.value)


def test_missing_file_names_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(ChallengeError) as caught:
        load_challenge(str(tmp_path / "none.yaml"))
    assert "none.yaml: no such file; expected a YAML file or one of the built" in str(caught.value)
    assert "learn2reg2021" in str(caught.value)


def test_folder_and_binary_file_are_no_challenge(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, found in ((tmp_path, "is a directory"), (binary, "not a text file")):
        with pytest.raises(ChallengeError, match=f"{path}: {found}; expected a YAML file"):
            load_challenge(path)


def test_file_is_read_like_its_text(tmp_path: Path) -> None:
    assert load_challenge(write_challenge(tmp_path / "tiny.yaml")) == tiny_challenge()


# --- The digest ---------------------------------------------------------------------------------


def shuffled(content: Content, rng: random.Random) -> Content:
    """The same content with the keys of its mappings in another order."""
    keys = rng.sample(list(content), len(content))
    return {
        key: shuffled(content[key], rng) if isinstance(content[key], dict) else content[key]
        for key in keys
    }


@pytest.mark.parametrize("seed", range(3))
def test_digest_ignores_spelling(seed: int) -> None:
    rng = random.Random(seed)
    content = shuffled(tiny_content(), rng)
    content["tasks"] = [shuffled(task, rng) for task in content["tasks"]]
    content["limits"]["memory"] = "2048 MiB"
    content["limits"]["pair_time"] = 10
    content["container"]["arguments"] = []  # as when the key is left out
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=bool(seed % 2))
    assert parse_challenge(text, origin="other").digest == tiny_challenge().digest


def test_digest_tells_contents_apart() -> None:
    digest = tiny_challenge().digest
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64
    assert accepted(lambda c: c["limits"].update(memory="3GiB")).digest != digest
    assert accepted(lambda c: c["tasks"].reverse()).digest != digest
    assert accepted(lambda c: c["container"].update(arguments=["x"])).digest != digest


# --- Later editions -----------------------------------------------------------------------------


def test_later_editions_can_be_described() -> None:
    """Full resolution, other mounts, the long form of field names, one file as a mount, a
    command-line argument."""

    def later(content: Content) -> None:
        content["container"] = {
            "mounts": [
                {"source": "data", "target": "/l2r/data"},
                {
                    "source": "data",
                    "target": "/LUMIR_dataset.json",
                    "path": "LUMIR_dataset.json",
                },
                {"source": "output", "target": "/l2r/output"},
            ],
            "arguments": ["/l2r/data/NLST_dataset.json"],
            "environment": {"OMP_NUM_THREADS": "4"},
        }
        content["limits"] |= {"memory": "64GiB", "shared_memory": "32GiB"}
        content["tasks"] = content["tasks"][:1]
        content["tasks"][0]["field"] = {
            "path": "disp_{fixed:04d}_0000_{moving:04d}_0001.npz",
            "resolution": "full",
            "shape": [3, 16, 12, 20],
            "dtype": "float32",
        }

    challenge = accepted(later)
    (task,) = challenge.tasks
    name = task.field.path.format(fixed=111, moving=7)
    assert name == "disp_0111_0000_0007_0001.npz"
    assert task.field.nbytes == 4 * 3 * 16 * 12 * 20
    assert [(m.target, m.path) for m in challenge.container.mounts if m.source == "data"] == [
        ("/l2r/data", "."),
        ("/LUMIR_dataset.json", "LUMIR_dataset.json"),
    ]
    assert challenge.container.arguments == ("/l2r/data/NLST_dataset.json",)


def test_mount_path_cannot_leave_the_data_folder() -> None:
    message = refusal(lambda c: c["container"]["mounts"][0].update(path="../secret"))
    assert "container.mounts.0.path: expected a path inside the folder" in message


# --- Quantities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        (" 1.5KiB ", 1536),
        ("1kB", 1000),
        ("0b", 0),
        ("2TB", 2 * 10**12),
        (4096, 4096),
        (0, 0),
    ],
)
def test_parse_bytes(text: object, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10min", 600), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800), (7, 7), (0.5, 0.5)],
)
def test_parse_seconds(text: object, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "GiB", "8", "8 G", "- b", "1,5GiB", "1e3b", "0x10b", "8GiB8GiB", "٣b"),
        *([], True, None, float("inf"), float("nan"), "inf s", "nan s"),
    ],
)
def test_what_is_no_quantity(text: object) -> None:
    for parse in (parse_bytes, parse_seconds):
        with pytest.raises(ValueError, match="expected a number with a unit"):
            parse(text)


@pytest.mark.parametrize("text", ["-1b", "-0.5s", -1, -0.5])
def test_quantity_below_zero(text: object) -> None:
    for parse in (parse_bytes, parse_seconds):
        with pytest.raises(ValueError, match=f"expected more than 0, found {text!r}"):
            parse(text)


UNITS = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.booleans())
@settings(deadline=None, max_examples=60)
def test_whole_numbers_of_bytes_are_exact(number: int, unit: str, upper: bool) -> None:
    text = f"{number} {unit.upper() if upper else unit}"
    assert parse_bytes(text) == number * UNITS[unit]


@example("9" * 400 + "s")
@example("9" * 400 + "b")
@example("9" * 308 + "TiB")
@example("9" * 5000 + "b")
@given(st.text(max_size=12) | st.from_regex(r"\s?\d{1,20}(\.\d+)?\s?[a-zA-Z]{0,3}", fullmatch=True))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_finite_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert 0 <= value < float("inf")


@given(st.integers(0, 2**50))
@settings(deadline=None, max_examples=100)
def test_format_bytes_is_near_the_size(size_bytes: int) -> None:
    number, unit = format_bytes(size_bytes).split()
    assert 0 <= float(number) <= 1024
    assert parse_bytes(f"{number}{unit}") == pytest.approx(size_bytes, rel=0.06)

"""Methods that are a program: what they are told, what is read back, what a failure says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from harness.challenge.field import Convention, DisplacementField
from harness.challenge.model import load_challenge
from harness.errors import FieldError, MethodError
from harness.runner import CommandMethod, ImagePair, LazyImage
from harness.runner.walk import task_info

HALF = (3, 4, 5)


@pytest.fixture
def pair(tmp_path: Path) -> ImagePair:
    """A pair whose files do not exist: the harness must not open them, the program does."""
    return ImagePair(
        task=task_info(load_challenge().task("task_02")),
        fixed_id=7,
        moving_id=12,
        fixed=LazyImage(tmp_path / "a fixed $HOME;.nii.gz"),
        moving=LazyImage(tmp_path / "moving.nii.gz"),
        auxiliary={"fixed_mask": tmp_path / "mask.nii.gz"},
    )


def program(code: str, *arguments: str, output_name: str = "field.npz") -> CommandMethod:
    """A CommandMethod that runs a Python program; ``argv`` and ``np`` are at hand in it."""
    source = f"import sys, os\nimport numpy as np\nargv = sys.argv[1:]\n{code}"
    source = source.replace("{", "{{").replace("}", "}}")
    return build(command=(sys.executable, "-c", source, *arguments), output_name=output_name)


def build(**attributes: object) -> CommandMethod:
    made: CommandMethod = type("Method", (CommandMethod,), attributes)()
    return made


def write(array: str = "np.ones((3, 3, 4, 5), np.float32)") -> str:
    return f"np.savez_compressed(argv[-1], {array})"


def test_each_placeholder_is_one_argument_whatever_is_in_it(
    pair: ImagePair, tmp_path: Path
) -> None:
    log = tmp_path / "arguments"
    method = program(
        f"open({str(log)!r}, 'w').write('\\n'.join(argv[:-1]))\n{write()}",
        *("--fixed={fixed}", "{moving}", "{fixed_mask}", "{task}", "{fixed_id:04d}"),
        *("{fixed_id}_{moving_id}", "{{plain}}", "{output}"),
    )
    method.register(pair)
    assert log.read_text().splitlines() == [
        f"--fixed={pair.fixed.path}",
        str(pair.moving.path),
        str(pair.auxiliary["fixed_mask"]),
        *("task_02", "0007", "7_12", "{plain}"),
    ]


def test_the_program_runs_in_a_private_folder_that_is_gone_afterwards(
    pair: ImagePair, tmp_path: Path
) -> None:
    log = tmp_path / "folder"
    method = program(
        f"open({str(log)!r}, 'w').write(os.getcwd())\nopen('left over', 'w').write('x')\n{write()}",
        "{output}",
    )
    method.register(pair)
    folder = Path(log.read_text())
    assert folder != Path.cwd()
    assert not folder.exists()


def test_an_npz_is_read_as_the_challenge_writes_it(pair: ImagePair) -> None:
    field = program(write("np.arange(180, dtype=np.float16).reshape(3, 3, 4, 5)"), "{output}")
    found = field.register(pair)
    assert found.grid == HALF
    assert found.vectors_vox((6, 8, 10))[2, 2, 3, 4] == 179


def test_a_nifti_is_read_with_components_last(pair: ImagePair, tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(*HALF, 3)).astype(np.float32)
    made = tmp_path / "made.nii.gz"
    nib.save(nib.nifti1.Nifti1Image(array, np.eye(4)), made)
    copy = f"import shutil; shutil.copy({str(made)!r}, argv[-1])"
    found = program(copy, "{output}", output_name="warp.nii.gz").register(pair)
    np.testing.assert_array_equal(found.vectors_vox((6, 8, 10)), np.moveaxis(array, 3, 0))


def test_a_subclass_reads_a_format_of_its_own(pair: ImagePair) -> None:
    class Method(CommandMethod):
        command = (sys.executable, "-c", "open('shift.txt', 'w').write('2.5')")
        output_name = "shift.txt"

        def read_output(self, path: Path) -> DisplacementField:
            shift = np.full((*HALF, 3), float(path.read_text()))
            return DisplacementField(array=shift, convention=Convention.VOXELS_LAST)

    assert Method().register(pair).vectors_vox(HALF).max() == 2.5


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("deeds", "-F", "{fixd}"), "unknown placeholder {fixd}"),
        (("deeds", "{}"), "not a valid argument"),
        (("deeds", "{fixed"), "not a valid argument"),
        (("deeds", "{fixed:04d}"), "not a valid argument"),
        (("deeds", "{fixed.nothing}"), "not a valid argument"),
        ((), "expected a tuple"),
        ("deeds -F {fixed}", "expected a tuple"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_any_pair(command: object, said: str) -> None:
    with pytest.raises(MethodError, match="command") as caught:
        build(command=command)
    assert said in str(caught.value)


@pytest.mark.parametrize("output_name", ["field.mha", "out/field.npz", ""])
def test_an_output_that_cannot_be_read_is_refused_before_any_pair(output_name: str) -> None:
    with pytest.raises(MethodError, match="output_name"):
        build(command=("deeds",), output_name=output_name)


def test_a_failure_names_pair_command_exit_code_and_last_words(
    pair: ImagePair, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "for n in range(50): print('line', n, file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(MethodError) as caught:
        program(code, "{output}", "an argument").register(pair)
    message = str(caught.value)
    assert "task_02 0007<-0012" in message
    assert "exit code 3" in message
    assert f"command: {sys.executable} -c" in message
    assert "'an argument'" in message
    assert message.endswith("| line 49")
    assert "| line 29\n" not in message
    assert "line 0\n" in capfd.readouterr().err  # the log has all of it


def test_a_program_ended_by_a_signal_says_which(pair: ImagePair) -> None:
    with pytest.raises(MethodError, match=r"SIGKILL.*memory"):
        program("os.kill(os.getpid(), 9)").register(pair)


def test_a_program_that_is_not_there_is_named(pair: ImagePair) -> None:
    method = build(command=("no-such-program-as-this", "{output}"))
    with pytest.raises(MethodError, match=r"0007<-0012: cannot start no-such-program-as-this"):
        method.register(pair)


def test_a_mask_the_pair_lacks_is_named(pair: ImagePair) -> None:
    with pytest.raises(MethodError, match=r"\{moving_mask\}.*the pair has none"):
        program(write(), "{moving_mask}", "{output}").register(pair)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("open('elsewhere.npz', 'w').close()", "found elsewhere.npz"),
        ("pass", "found nothing"),
        ("open(argv[-1], 'wb').write(b'PK no zip')", "not a readable field"),
        ("open(argv[-1], 'wb').close()", "not a readable field"),
        ("np.savez(argv[-1], a=np.ones(3), b=np.ones(3))", "exactly one array"),
        (write("np.array([{'a': 1}], dtype=object)"), "allow_pickle"),
        (write("np.ones((3, 4, 5, 3), np.float32)[:2]"), "expected shape (3, X, Y, Z)"),
        (write("np.ones((3, 3, 4, 5), np.int16)"), "floating-point"),
    ],
)
def test_an_output_that_is_no_field_is_the_submissions_fault(
    pair: ImagePair, code: str, said: str
) -> None:
    with pytest.raises(FieldError, match="0007<-0012") as caught:
        program(code, "{output}").register(pair)
    assert said in str(caught.value)


def test_the_program_gets_no_terminal_to_wait_at(pair: ImagePair) -> None:
    """A program that asks a question must not hang the campaign until its deadline."""
    read_end, write_end = os.pipe()  # our own stdin would never end
    saved = os.dup(0)
    try:
        os.dup2(read_end, 0)
        program(f"assert sys.stdin.read() == ''\n{write()}", "{output}").register(pair)
    finally:
        os.dup2(saved, 0)
        for descriptor in (read_end, write_end, saved):
            os.close(descriptor)

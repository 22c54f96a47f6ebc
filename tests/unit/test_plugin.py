"""The plugin: how it is loaded, what a broken one is told, and the walk over the pairs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.challenge.field_file import read_field
from harness.challenge.pairs import read_pairs
from harness.errors import MethodError
from harness.runner.plugin import ImagePair, LazyImage, RegistrationMethod, load_method
from harness.runner.walk import attempted, task_info, walk
from tests.tiny import GRID, ZERO, tiny_challenge, write_challenge, write_data, write_method

if TYPE_CHECKING:
    from collections.abc import Iterator

CHALLENGE = tiny_challenge()
IMPORTS = "from harness.runner import DisplacementField, RegistrationMethod\n"
FIELDS = [
    "task_01/disp_0001_0001.npz",
    "task_01/disp_0002_0002.npz",
    "task_02/disp_0007_0008.npz",
    "task_02/disp_0008_0009.npz",
]


@pytest.fixture(autouse=True)
def _own_imports() -> Iterator[None]:
    """A plugin is imported once in a process's life; here, once in each test."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "method"
    path.mkdir()
    return path


def load(folder: Path, text: str) -> RegistrationMethod:
    (folder / "method.py").write_text(textwrap.dedent(text))
    return load_method(folder)


def refusal(folder: Path, text: str | None = None) -> str:
    if text is not None:
        (folder / "method.py").write_text(textwrap.dedent(text))
    with pytest.raises(MethodError) as caught:
        load_method(folder)
    message = str(caught.value)
    assert str(folder / "method.py") in message
    return message


# --- Loading ------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "expected the file" in refusal(tmp_path / "none")


def test_no_file(folder: Path) -> None:
    (folder / "Method.py").touch()
    assert "expected the file" in refusal(folder)
    (folder / "method.py").mkdir()
    assert "expected the file" in refusal(folder)


def test_syntax_error_shows_the_line(folder: Path) -> None:
    message = refusal(folder, "import os\ndef broken(:\n    pass\n")
    assert "the import failed: SyntaxError" in message
    assert "def broken(:" in message
    assert "line 2" in message
    assert "importlib" not in message


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no GPU')", "SystemExit: no GPU"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_import_that_fails(folder: Path, statement: str, error: str) -> None:
    message = refusal(folder, f"import os\n\n{statement}\n")
    assert f"the import failed: {error}" in message
    assert f'{folder / "method.py"}", line 3' in message
    assert statement in message
    assert "importlib" not in message


def test_traceback_starts_in_the_methods_own_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the folder was named relative to the working folder, and through a helper."""
    (folder / "helper.py").write_text("def fail():\n    raise KeyError('deep')\n")
    (folder / "method.py").write_text("import helper\nhelper.fail()\n")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(MethodError) as caught:
        load_method(Path("method"))
    message = str(caught.value)
    assert "helper.fail()" in message
    assert "raise KeyError('deep')" in message
    assert "importlib" not in message


def test_no_class(folder: Path) -> None:
    message = refusal(folder, IMPORTS + "class MyMethod(RegistrationMethod): pass\n")
    assert "expected a class named Method, found none" in message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class Method:\n    def register(self, pair): ...\n", "<class 'method.Method'>"),
        ("def Method(): ...\n", "<function Method"),
        ("Method = 7\n", "found 7"),
    ],
)
def test_not_derived(folder: Path, text: str, found: str) -> None:
    message = refusal(folder, text)
    assert "derived from harness.runner.RegistrationMethod" in message
    assert found in message


@pytest.mark.parametrize(
    ("definition", "found"),
    [
        ("def register(self): ...", "register(self)"),
        ("def register(self, a, b): ...", "register(self, a, b)"),
        ("def register(): ...", "register()"),
        ("def register(self, *, pair): ...", "register(self, *, pair)"),
        ("register = None", "register = None"),
        ("@staticmethod\n    def register(pair): ...", "register"),
        ("@staticmethod\n    def register(a, b): ...", "staticmethod"),
        ("@classmethod\n    def register(cls, pair): ...", "register"),
        ("def prepare(self): ...\n    def register(self, pair): ...", "prepare(self)"),
        ("def prepare(self, a, b): ...\n    def register(self, pair): ...", "prepare(self, a, b)"),
    ],
)
def test_wrong_signature(folder: Path, definition: str, found: str) -> None:
    message = refusal(folder, IMPORTS + f"class Method(RegistrationMethod):\n    {definition}\n")
    name = "prepare(self, task)" if "prepare" in definition else "register(self, pair)"
    assert f"expected {name}, found " in message
    assert found in message


def test_no_register(folder: Path) -> None:
    message = refusal(folder, IMPORTS + "class Method(RegistrationMethod): pass\n")
    assert "Method lacks register(self, pair)" in message


@pytest.mark.parametrize(
    "definition",
    [
        "def register(self, pair): ...",
        "def register(self, images, debug=False): ...",
        "def register(self, *pairs): ...",
        "def register(self, pair, /): ...",
        "def register(self, pair): ...\n    def prepare(self, task, device='cpu'): ...",
    ],
)
def test_signature_that_will_do(folder: Path, definition: str) -> None:
    method = load(folder, IMPORTS + f"class Method(RegistrationMethod):\n    {definition}\n")
    assert method.tasks is None
    assert type(method).__name__ == "Method"


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("raise RuntimeError('no weights')", "RuntimeError: no weights"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_constructor_that_fails(folder: Path, statement: str, error: str) -> None:
    message = refusal(
        folder,
        IMPORTS + "class Method(RegistrationMethod):\n"
        f"    def __init__(self):\n        {statement}\n"
        "    def register(self, pair): ...\n",
    )
    assert f"Method() failed: {error}" in message
    assert statement in message


def test_constructor_with_arguments(folder: Path) -> None:
    message = refusal(
        folder,
        IMPORTS + "class Method(RegistrationMethod):\n"
        "    def __init__(self, device): ...\n"
        "    def register(self, pair): ...\n",
    )
    assert "Method() failed: TypeError" in message


def test_modules_beside_the_method(folder: Path) -> None:
    """As are packages, pickled classes and dataclasses, which look their module up by name."""
    (folder / "net").mkdir()
    (folder / "net" / "__init__.py").write_text("NAME = 'net'\n")
    (folder / "beside.py").write_text("import net\nNAME = 'beside ' + net.NAME\n")
    method = load(
        folder,
        IMPORTS
        + """
import beside, dataclasses, pickle

@dataclasses.dataclass
class Weights:
    n: int

class Method(RegistrationMethod):
    name = beside.NAME
    weights = pickle.loads(pickle.dumps(Weights(3)))
    def register(self, pair): ...
""",
    )
    assert vars(type(method))["name"] == "beside net"
    assert vars(type(method))["weights"].n == 3


# --- What a method is given ---------------------------------------------------------------------


def test_image_is_opened_when_it_is_asked_for(tmp_path: Path) -> None:
    pair = ImagePair(
        task=task_info(CHALLENGE.tasks[0]),
        fixed_id=1,
        moving_id=2,
        fixed=LazyImage(tmp_path / "fixed.nii.gz"),
        moving=LazyImage(tmp_path / "moving.nii.gz"),
        auxiliary={"fixed_mask": tmp_path / "mask.nii.gz"},
    )
    assert str(pair) == "task_01 0001<-0002"
    assert pair.fixed_mask is not None
    assert pair.moving_mask is None
    for image in (pair.fixed, pair.moving, pair.fixed_mask):
        with pytest.raises(FileNotFoundError):
            _ = image.array


def test_image_as_a_method_sees_it(tmp_path: Path) -> None:
    import nibabel as nib  # noqa: PLC0415 - only this test writes a scaled image

    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nifti = nib.nifti1.Nifti1Image(values, np.diag([2.0, 1.5, 3.0, 1.0]))
    nifti.header.set_slope_inter(2.0, -10.0)
    nifti.to_filename(tmp_path / "image.nii.gz")
    image = LazyImage(tmp_path / "image.nii.gz")
    assert image.array.dtype == np.float32
    assert image.array.shape == (2, 3, 4)
    stored = nib.nifti1.Nifti1Image.from_filename(tmp_path / "image.nii.gz")
    assert np.array_equal(image.array, stored.get_fdata())
    assert image.spacing_mm == (2.0, 1.5, 3.0)
    assert np.array_equal(image.affine, np.diag([2.0, 1.5, 3.0, 1.0]))
    assert image.array is image.array


# --- The walk -----------------------------------------------------------------------------------


class Walked:
    """What a method with this body left behind after a walk over the tiny challenge."""

    def __init__(self, root: Path, body: str, *, members: str = "") -> None:
        self.data = write_data(root / "data")
        self.output = root / "output"
        for task in ("task_01", "task_02"):
            (self.output / task).mkdir(parents=True, exist_ok=True)
        write_method(root, body, members=members)
        self.method = load_method(root / "method")

    def walk(self) -> int:
        """How many pairs failed."""
        found = read_pairs(CHALLENGE, self.data)
        tasks = attempted(self.method, found, (task.name for task in CHALLENGE.tasks))
        return len(walk(self.method, tasks, data_dir=self.data, output_dir=self.output))

    @property
    def fields(self) -> list[str]:
        files = (path for path in self.output.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.output)) for path in files)


def failing(statement: str) -> str:
    """A body that fails for the first pair of each task and gives a field for the second."""
    return f"if pair.fixed_id in (1, 7):\n    {statement}\n" + ZERO


def test_all_pairs(tmp_path: Path) -> None:
    walked = Walked(tmp_path, ZERO)
    assert walked.walk() == 0
    assert walked.fields == FIELDS
    for name in FIELDS:
        read_field(walked.output / name, CHALLENGE.tasks[0].field)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise ValueError('too dark')", "ValueError: too dark"),
        ("raise SystemExit", "SystemExit"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("return None", "expected register() to return a DisplacementField, found NoneType"),
        ("return np.zeros((3, 8, 6, 10))", "found ndarray; wrap the array"),
        (
            "return DisplacementField(array=np.zeros((3, 8, 6, 11)))",
            "expected a field on the image",
        ),
        ("return DisplacementField(array=np.zeros((8, 6, 10, 3)))", "expected shape (3, X, Y, Z)"),
        ("return DisplacementField(array=np.full((3, 8, 6, 10), np.nan))", "1440 values that are"),
        ("return DisplacementField(array=np.full((3, 8, 6, 10), 1e9))", "are they in voxels?"),
        ("assert not pair.fixed_mask\n    open('/nowhere/at/all')", "FileNotFoundError"),
    ],
)
def test_a_pair_that_fails_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, said: str
) -> None:
    walked = Walked(tmp_path, failing(statement))
    assert walked.walk() == 2
    assert walked.fields == [FIELDS[1], FIELDS[3]]
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert "task_01 0001<-0001  failed" in printed.out
    assert "task_01 0002<-0002  field written" in printed.out


@pytest.mark.parametrize("statement", ["raise ValueError", "raise SystemExit(0)"])
def test_a_task_that_cannot_be_prepared_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str
) -> None:
    members = f"""
def prepare(self, task):
    if task.name == "task_01":
        {statement}
"""
    walked = Walked(tmp_path, ZERO, members=members)
    assert walked.walk() == 2
    assert walked.fields == FIELDS[2:]
    assert "task_01: prepare() failed, its 2 pairs are skipped" in capsys.readouterr().out


def test_an_interruption_is_not_the_pairs_failure(tmp_path: Path) -> None:
    """Ctrl-C ends the walk, whatever the method was doing."""
    walked = Walked(tmp_path, failing("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        walked.walk()
    assert walked.fields == []


def test_order_of_calls(tmp_path: Path) -> None:
    members = """
calls = []
def prepare(self, task):
    self.calls.append((task.name, task.image_grid, task.field.shape))
"""
    walked = Walked(tmp_path, "self.calls.append(str(pair))\n" + ZERO, members=members)
    walked.walk()
    assert vars(type(walked.method))["calls"] == [
        ("task_01", GRID, (3, 8, 6, 10)),
        "task_01 0001<-0001",
        "task_01 0002<-0002",
        ("task_02", GRID, (3, 8, 6, 10)),
        "task_02 0007<-0008",
        "task_02 0008<-0009",
    ]


def test_field_of_an_earlier_run_does_not_stand_in(tmp_path: Path) -> None:
    walked = Walked(tmp_path, failing("raise ValueError"))
    for name in FIELDS:
        (walked.output / name).write_bytes(b"earlier")
    walked.walk()
    assert walked.fields == [FIELDS[1], FIELDS[3]]
    assert (walked.output / FIELDS[1]).read_bytes() != b"earlier"


def test_folder_in_place_of_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walked = Walked(tmp_path, ZERO)
    (walked.output / FIELDS[0]).mkdir()
    assert walked.walk() == 1
    assert walked.fields == FIELDS[1:]
    assert "task_01 0001<-0001  failed" in capsys.readouterr().out


@pytest.mark.parametrize("tasks", ["frozenset({'task_02'})", "['task_02']", "('task_02',)"])
def test_a_method_for_some_tasks(tmp_path: Path, tasks: str) -> None:
    walked = Walked(tmp_path, ZERO, members=f"tasks = {tasks}")
    assert walked.walk() == 0
    assert walked.fields == FIELDS[2:]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            "{'task_01', 'task_04'}",
            "Method.tasks names 'task_04'; the challenge has task_01, task_02",
        ),
        ("{1, 'task_01'}", "Method.tasks names 1"),
        ("'task_01'", "Method.tasks: expected a set of task names, found 'task_01'"),
        ("7", "Method.tasks: expected a set of task names, found 7"),
        ("[['task_01']]", "Method.tasks names ['task_01']; the challenge has task_01, task_02"),
    ],
)
def test_tasks_that_the_challenge_does_not_have(tmp_path: Path, tasks: str, said: str) -> None:
    walked = Walked(tmp_path, ZERO, members=f"tasks = {tasks}")
    with pytest.raises(MethodError) as caught:
        walked.walk()
    assert said in str(caught.value)


# --- The whole runner, as the container starts it -----------------------------------------------


class Runner:
    """A data folder, an output folder and a method, and ``python -m harness.runner`` on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data, self.output = root / "data", root / "output"
        write_data(self.data)
        write_challenge(root / "tiny.yaml")
        self.output.mkdir()

    def write_method(self, body: str, *, head: str = "") -> None:
        """A plugin that begins with ``head``."""
        path = write_method(self.root, body) / "method" / "method.py"
        path.write_text(f"import os, sys, time\n{head}\n{path.read_text()}")

    def start(self) -> subprocess.Popen[str]:
        settings = {
            "HARNESS_DATA_DIR": self.data,
            "HARNESS_OUTPUT_DIR": self.output,
            "HARNESS_METHOD_DIR": self.root / "method",
            "HARNESS_CHALLENGE": self.root / "tiny.yaml",
            "HARNESS_INSIDE_REPORT": self.root / "inside.json",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "harness.runner"],
            env=os.environ | {name: str(path) for name, path in settings.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str, str]:
        with self.start() as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def fields(self) -> list[str]:
        return sorted(str(p.relative_to(self.output)) for p in self.output.rglob("disp_*"))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_runner_writes_all_fields(runner: Runner) -> None:
    runner.write_method(ZERO)
    code, out, err = runner.run()
    assert (code, err) == (0, "")
    assert runner.fields == FIELDS
    report = json.loads((runner.root / "inside.json").read_text())
    assert [timing["pair"] for timing in report["pairs"]] == [
        "task_01/0001_0001",
        "task_01/0002_0002",
        "task_02/0007_0008",
        "task_02/0008_0009",
    ]
    assert all(timing["runtime_s"] is not None for timing in report["pairs"])
    assert "Runtimes as the runner saw them" in out


def test_runner_with_pairs_that_fail(runner: Runner) -> None:
    runner.write_method(failing("import sys; sys.exit(0)"))
    code, _, err = runner.run()
    assert code == 23
    assert "error: 2 of 4 pairs failed, see above" in err
    assert runner.fields == [FIELDS[1], FIELDS[3]]
    report = json.loads((runner.root / "inside.json").read_text())
    assert [timing["runtime_s"] is None for timing in report["pairs"]] == [True, False] * 2


@pytest.mark.parametrize("head", ["sys.exit(0)", "import no_such_module_anywhere"])
def test_runner_with_a_broken_plugin(runner: Runner, head: str) -> None:
    """An exit code of 0 without a field would look like a method that had nothing to do."""
    runner.write_method(ZERO, head=head)
    (runner.data / "task_01/img0001.nii.gz").unlink()
    code, out, err = runner.run()
    assert code == 20
    assert err.startswith(f"error: {runner.root}/method/method.py: the import failed")
    assert out == ""
    assert runner.fields == []


def test_runner_with_broken_data(runner: Runner) -> None:
    runner.write_method(ZERO)
    (runner.data / "task_02/img0009.nii.gz").unlink()
    code, _, err = runner.run()
    assert code == 11
    assert "expected its moving file task_02/img0009.nii.gz, found none" in err
    assert runner.fields == []


def test_runner_with_an_output_folder_it_cannot_write(runner: Runner) -> None:
    runner.write_method(ZERO)
    runner.output.rmdir()
    runner.output.write_text("a file, not a folder")
    code, _, err = runner.run()
    assert code == 12
    assert f"error: output folder {runner.output}/task_0" in err
    assert "cannot be made" in err


def test_runner_with_a_broken_challenge(runner: Runner) -> None:
    (runner.root / "tiny.yaml").write_text("name: tiny\n")
    assert runner.run()[0] == 10


def test_runner_opens_no_data_before_a_method_asks(runner: Runner) -> None:
    """Nothing but the lists of pairs: the clock of a pair starts at the first opening."""
    head = """
OPENED = []

def note(event, arguments):
    if event == "open" and DATA in str(arguments[0]):
        OPENED.append(os.path.basename(str(arguments[0])))

sys.addaudithook(note)
""".replace("DATA", repr(f"{runner.data}/"))
    body = "print(*OPENED)\nOPENED.clear()\npair.fixed.array\nprint(*set(OPENED))\n" + ZERO
    runner.write_method(body, head=head)
    (runner.data / "task_02" / "pairs_val.csv").write_text("fixed,moving\n7,8\n")
    code, out, _ = runner.run()
    assert code == 0
    assert out.splitlines()[:2] == ["pairs_val.csv pairs_val.csv", "img0001.nii.gz"]


@pytest.mark.parametrize("where", ["register", "import"])
def test_runner_that_is_asked_to_stop(runner: Runner, where: str) -> None:
    """The stop is the container's end, neither a failed pair nor a broken plugin."""
    wait = "print('waiting', flush=True); time.sleep(60)"
    runner.write_method(
        wait if where == "register" else ZERO,
        head=wait if where == "import" else "",
    )
    with runner.start() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "failed" not in out + err
    assert "Traceback" not in err
    assert runner.fields == []

"""What runs beside other tests, and what alone: by a pytest of several processes of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.side_by_side import ALONE, BESIDE, LAST, LONGEST, scope_of

REPOSITORY = Path(__file__).parents[2]

CONFTEST = """
from tests.side_by_side import SideBySide

def pytest_xdist_make_scheduler(config, log):
    return SideBySide(config, log)
"""

# Each notes when it began and ended, and in which process.
MODULE = """
import os, time
import pytest

@pytest.mark.parametrize("n", range(4))
def test(n):
    start = time.monotonic()
    time.sleep(0.05)
    line = f"{__file__} {os.getpid()} {start} {time.monotonic()}\\n"
    with open(NOTES, "a") as file:
        file.write(line)
"""


def run(folder: Path, *modules: str) -> tuple[str, list[tuple[str, str, float, float]]]:
    """What pytest printed; module, process, start and end of each test, by their starts."""
    notes = folder / "notes"
    (folder / "pytest.ini").touch()
    (folder / "conftest.py").write_text(CONFTEST)
    for module in modules:
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).write_text(MODULE.replace("NOTES", repr(str(notes))))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "--import-mode=importlib"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in notes.read_text().splitlines()]
    found = [
        (str(Path(path).relative_to(folder)), process, float(start), float(end))
        for path, process, start, end in lines
    ]
    return done.stdout, sorted(found, key=lambda test: test[2])


def test_what_runs_alone_runs_last_in_one_process_and_beside_nothing(tmp_path: Path) -> None:
    alone = ("tests/docker/test_any.py", next(iter(ALONE)))
    beside = ("tests/unit/test_a.py", "tests/unit/test_b.py", next(iter(BESIDE)))
    text, found = run(tmp_path, *alone, *beside)
    assert [module in alone for module, *_ in found] == [False] * 12 + [True] * 8
    assert len({process for module, process, *_ in found if module in beside}) == 2
    assert len({process for module, process, *_ in found if module in alone}) == 1
    (first, *_) = (start for module, _, start, _ in found if module in alone)
    assert first >= max(end for module, *_, end in found if module in beside)
    assert re.findall(r"=+ (\d+) passed in .*s =+", text) == ["20"]


def test_there_need_be_nothing_to_run_beside(tmp_path: Path) -> None:
    _, found = run(tmp_path, "tests/docker/test_any.py")
    assert len({process for _, process, *_ in found}) == 1
    assert len(found) == 4


def test_a_module_stays_together() -> None:
    assert scope_of("tests/unit/test_field.py::TestAny::test[a::b]") == "tests/unit/test_field.py"
    assert scope_of("tests/docker/test_faults.py::test_fault[fifo]") == LAST


@pytest.mark.parametrize("module", sorted(ALONE | BESIDE | set(LONGEST)))
def test_modules_that_are_named_are_there(module: str) -> None:
    assert (REPOSITORY / module).is_file()
    assert (scope_of(module) == LAST) == (module in ALONE)

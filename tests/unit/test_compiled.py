"""Where compiled loops are kept."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from harness.evaluate.kernels.compiled import private_folder
from harness.evaluate.memory import give_back_memory

if TYPE_CHECKING:
    from pathlib import Path

_CALL = """
import numpy as np
from harness.evaluate.kernels.layout import transpose
out = np.empty((4, 3, 2), np.uint8)
transpose(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), out)
print(*out[:, 1, 1], sum(transpose.stats.cache_hits.values()))
"""


def test_the_next_process_finds_what_was_compiled(tmp_path: Path) -> None:
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _CALL],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        *values, found = done.stdout.split()
        assert values == ["16", "17", "18", "19"]
        hits.append(int(found))
    assert hits == [0, 1]


_AT_ONCE = """
import numpy as np
from harness.evaluate.kernels.compiled import on_compilation
from harness.evaluate.kernels.layout import transpose
print("ready", flush=True)
input()
out = np.empty((4, 3, 2), np.uint8)
told = []
with on_compilation(lambda: told.append(True)):
    transpose(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), out)
print(sum(transpose.stats.cache_misses.values()), len(told))
"""


def test_processes_that_want_the_same_at_once_compile_it_once(tmp_path: Path) -> None:
    """And only the one that does is told."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _AT_ONCE],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in both]
    assert sorted(answers) == [["0", "0"], ["1", "1"]]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_private_folder_is_the_users_alone(temporary: Path) -> None:
    folder = private_folder()
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder() == folder


def test_a_folder_that_others_may_write_to_is_not_used(temporary: Path) -> None:
    """Whoever can write there can have us execute what they like."""
    folder = private_folder()
    folder.chmod(0o777)
    assert private_folder() != folder
    folder.rmdir()
    (temporary / "elsewhere").mkdir()
    folder.symlink_to(temporary / "elsewhere")
    assert private_folder() != folder


def test_memory_can_be_given_back_at_any_time() -> None:
    give_back_memory()
    block = bytearray(1 << 22)
    give_back_memory()
    assert not any(block)

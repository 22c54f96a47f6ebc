"""Building the library that replays, and what it replays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
AMPERE = HERE / "ampere.replay"
UUIDS = tuple(f"GPU-{str(number) * 8}-0000-0000-0000-000000000000" for number in (1, 2, 3))
LIBRARY = "libnvidia-ml.so.1"


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path, *, old_driver: bool = False) -> Path:
    """The folder with the library, for ``LD_LIBRARY_PATH``."""
    folder.mkdir(parents=True, exist_ok=True)
    old = ("-DOLD_DRIVER",) if old_driver else ()
    subprocess.run(
        [
            *(str(compiler()), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", *old),
            *("-o", str(folder / LIBRARY), str(HERE / "replay.c")),
        ],
        check=True,
    )
    return folder


def replay(changes: dict[str, str], base: Path = AMPERE) -> str:
    """``base`` with other answers: by ``SYMBOL`` of all GPUs, or ``SYMBOL GPU`` of one."""
    lines = base.read_text().splitlines()
    for name, answers in changes.items():
        symbol, _, gpu = name.partition(" ")
        # What is of one GPU counts before what is of all.
        lines = [line for line in lines if gpu or line.split(" ")[0] != symbol]
        lines.append(f"{symbol} {gpu or '*'} {answers}")
    return "\n".join(lines) + "\n"

"""Options that several commands share."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.challenge.model import DEFAULT_CHALLENGE, builtin_names


class EngineOption(StrEnum):
    AUTO = "auto"
    DOCKER = "docker"
    PROCESS = "process"


EngineArgument = Annotated[
    EngineOption,
    typer.Option(
        "--engine",
        help="docker: in a container. process: as a plain child process, no isolation. "
        "auto: docker where a daemon answers, else process.",
    ),
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data", help="The challenge's data: task_01/, task_02/, ... or what its file says."
    ),
]
TruthOption = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        help="Folder with the truth, which the submission never sees. \\[default: beside the data]",
        show_default=False,
    ),
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder that keeps every run.")]
BaseImageOption = Annotated[
    str | None,
    typer.Option("--base-image", help="Image to build on instead of the Dockerfile's default."),
]
ChallengeOption = Annotated[
    str,
    typer.Option(
        "--challenge", help=f"A YAML file or one of the built-in: {', '.join(builtin_names())}."
    ),
]

LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Another limit than the challenge's, such as memory=8GiB or pair_time=2min; may be "
        "given several times. The record says so.",
    ),
]
ReadOnlyRootOption = Annotated[
    bool,
    typer.Option(
        "--read-only-root",
        help="Let the submission write only its output folder and /tmp.",
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime", metavar="NAME", help="The engine's container runtime, such as runsc or nvidia."
    ),
]


GpusOption = Annotated[
    str,
    typer.Option(
        "--gpus",
        metavar="none|all|auto|INDEX|UUID",
        help="GPUs that the run gets, several with commas between. auto: all that are here and "
        "that the engine can hand out.",
    ),
]
PlaceGpuOption = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        "--gpu",
        metavar="INDEX|UUID|none",
        help="The GPU that every run here gets. \\[default: none]",
        show_default=False,
    ),
]


def options_given(challenge: str, data: Path) -> str:
    """The options that the next command needs as well, for a hint that can be copied."""
    options = "" if challenge == DEFAULT_CHALLENGE else f" --challenge {challenge}"
    if data.resolve() != Path("test").resolve():
        options += f" --data {os.path.relpath(data)}"
    return options

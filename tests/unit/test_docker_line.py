"""The docker line that teams copy, held against what `harness run` asks of the engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.challenge.model import builtin_names, load_challenge
from harness.challenge.quantity import parse_bytes
from harness.engine.arguments import container_arguments
from harness.engine.base import Image, RunSpec
from harness.engine.owner import Owner
from harness.outline import docker_line
from tests.tiny import tiny_challenge

if TYPE_CHECKING:
    from harness.challenge.model import Challenge

# The harness removes, mounts and sets variables by its own means, and has more that a person's run
# has no use for, or leaves as the engine has it.
OF_THE_LINE_ALONE = {"rm", "mount", "env"}
OF_THE_HARNESS_ALONE = {
    *("image", "command", "name", "labels", "environment", "mounts", "log_config", "stop_signal"),
    *("detach", "tty", "stdin_open", "privileged", "read_only", "runtime", "cpuset_cpus"),
}
NO_VALUE = {"rm", "init", "no-healthcheck"}


def flags(challenge: Challenge) -> dict[str, list[str]]:
    """By name, without its dashes: every value that the line gives it."""
    line = docker_line(challenge).replace("\\\n", " ").replace("$(pwd)", "/here")
    words = iter(shlex.split(line.partition("docker run ")[2]))
    found: dict[str, list[str]] = {}
    for word in words:
        if not word.startswith("--"):
            break
        name = word.removeprefix("--")
        found.setdefault(name, []).append("" if name in NO_VALUE else next(words))
    return found


def asked(challenge: Challenge) -> dict[str, Any]:
    spec = RunSpec(
        image=Image(id="sha256:0", reference="IMAGE"),
        name="run",
        mounts=(),
        limits=challenge.limits,
        log_path=Path("/log.txt"),
    )
    return container_arguments(spec, name="l2r-x", owner=Owner.current())


def in_docker_s_words(arguments: dict[str, Any]) -> dict[str, list[str]]:
    """What the line must say for the same container."""
    (tmpfs,) = (f"{place}:{options}" for place, options in arguments["tmpfs"].items())
    return {
        "init": [""] if arguments["init"] else [],
        "network": [arguments["network_mode"]],
        "ipc": [arguments["ipc_mode"]],
        "cap-drop": arguments["cap_drop"],
        "security-opt": arguments["security_opt"],
        "hostname": [arguments["hostname"]],
        "memory": [str(arguments["mem_limit"])],
        "memory-swap": [str(arguments["memswap_limit"])],
        "shm-size": [str(arguments["shm_size"])],
        "pids-limit": [str(arguments["pids_limit"])],
        "tmpfs": [tmpfs],
        # The engine may not be able to give the third, and refuses the container then.
        "ulimit": [
            f"{limit.name}={limit.soft}"
            for limit in arguments["ulimits"]
            if limit.name != "nofile" and limit.soft == limit.hard
        ],
        "oom-score-adj": [str(arguments["oom_score_adj"])],
        "no-healthcheck": [""] if arguments["healthcheck"] == {"test": ["NONE"]} else [],
    }


def in_bytes(text: str) -> str:
    """Docker's g and m are powers of two."""
    unit = {"g": "GiB", "m": "MiB"}.get(text[-1])
    return text if unit is None else str(parse_bytes(f"{text[:-1]}{unit}"))


@pytest.mark.parametrize("name", ["tiny", *builtin_names()])
def test_every_flag_is_what_the_harness_asks_for(name: str) -> None:
    challenge = tiny_challenge() if name == "tiny" else load_challenge(name)
    said = flags(challenge)
    for flag in ("memory", "memory-swap", "shm-size"):
        said[flag] = [in_bytes(text) for text in said[flag]]
    expected = in_docker_s_words(asked(challenge))
    assert {flag: said[flag] for flag in said if flag not in OF_THE_LINE_ALONE} == expected


def test_nothing_that_the_harness_asks_for_is_forgotten() -> None:
    """An argument that is added belongs into the line, or into the list of those that do not."""
    compared = {
        *("init", "network_mode", "ipc_mode", "cap_drop", "security_opt", "hostname", "mem_limit"),
        *("memswap_limit", "shm_size", "pids_limit", "tmpfs", "ulimits", "oom_score_adj"),
        "healthcheck",
    }
    assert set(asked(tiny_challenge())) == compared | OF_THE_HARNESS_ALONE

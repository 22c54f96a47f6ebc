"""What speaks against running an image, from its facts: the same for a file and for a name."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from harness.engine.owner import LABEL_PREFIX
from harness.imports.tar import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.engine.image_facts import ImageFacts

_MAX_LISTED = 8
_CONTRACT_FOLDER = "/l2r"
_PORT = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", re.ASCII)
_REALTIME_SIGNAL = re.compile(r"SIGRT(MIN(\+[0-9]{1,2})?|MAX(-[0-9]{1,2})?)")
_WORD_BYTES, _WORDS_BYTES = 128 << 10, 1 << 20  # execve(2): half of what the stack allows
_LAST_USER = 2**31 - 1  # Docker's
_LAST_SIGNAL = 64  # signal(7)


def problems_of(facts: ImageFacts, platform: str) -> list[str]:
    """Why it cannot be run at all here. ``platform``: the engine's own."""
    problems = []
    if facts.platform != platform:
        problems.append(
            f"platform: expected {platform}, found {shown(facts.platform)}; build it with "
            f"`docker build --platform {platform}`"
        )
    if not (any(facts.entrypoint) or any(facts.cmd)):
        problems.append(
            "program: expected ENTRYPOINT or CMD, found neither; add ENTRYPOINT to its Dockerfile"
        )
    problems += _uncreatable(facts)
    if ours := [name for name in facts.labels if name.strip().startswith(LABEL_PREFIX)]:
        problems.append(
            f"labels: expected none that begin with {LABEL_PREFIX}, by which the harness knows its "
            f"own containers, found {listed(ours)}; remove LABEL from its Dockerfile"
        )
    return problems


def _uncreatable(facts: ImageFacts) -> Iterator[str]:
    """What engines refuse only when they make a container, which would look like their failure."""
    if facts.working_dir and not facts.working_dir.startswith("/"):
        yield f"WORKDIR: expected an absolute path, found {shown(facts.working_dir)}"
    if bad := [path for path in facts.volumes if not path.startswith("/") or not path.strip("/.")]:
        yield f"VOLUME: expected absolute paths below /, found {listed(bad)}"
    if bad := [port for port in facts.ports if not _PORT.fullmatch(port)]:
        yield f"EXPOSE: expected ports such as 80/tcp, found {listed(bad)}"
    if bad := [text for text in facts.environment if text.find("=") < 1]:
        yield f"ENV: expected NAME=VALUE, found {listed(bad)}"
    words = (*facts.entrypoint, *facts.cmd, *facts.environment)
    if any("\0" in text for text in (*words, facts.user, facts.working_dir)):
        yield "settings: expected text, found zero bytes in it"
    sizes = [len(text.encode(errors="replace")) + 1 for text in words]
    if sum(sizes) > _WORDS_BYTES or max(sizes, default=0) > _WORD_BYTES:
        yield (
            f"settings: expected at most {_WORDS_BYTES} bytes of program, arguments and variables, "
            f"{_WORD_BYTES} in one, found more, with which Linux starts no program"
        )
    if any(number.isdigit() and int(number[:20]) > _LAST_USER for number in facts.user.split(":")):
        yield f"USER: expected numbers up to {_LAST_USER}, found {shown(facts.user)}"
    if facts.stop_signal and not _is_signal(facts.stop_signal):
        yield f"STOPSIGNAL: expected a signal such as SIGTERM, found {shown(facts.stop_signal)}"


def _is_signal(text: str) -> bool:
    if text.isascii() and text.isdigit():
        return 0 < int(text[:4]) <= _LAST_SIGNAL
    name = f"SIG{text.upper().removeprefix('SIG')}"
    return name in signal.Signals.__members__ or _REALTIME_SIGNAL.fullmatch(name) is not None


def notes_on(facts: ImageFacts) -> list[str]:
    """What is unusual about it and does not keep it from being run."""
    notes = []
    if facts.root is None:
        notes.append(
            f"user {shown(facts.user)}: whether that is root only its own files tell; it gets no "
            "capabilities in any case"
        )
    if facts.volumes:
        notes.append(
            f"VOLUME {listed(facts.volumes)}: what is written there is gone after the run"
            + (
                f"; fields written to a volume below {_CONTRACT_FOLDER} are not seen"
                if any(_in_contract(path) for path in facts.volumes)
                else ""
            )
        )
    if facts.ports:
        notes.append(f"EXPOSE {listed(facts.ports)}: there is no network, so nobody connects")
    if facts.has_healthcheck:
        notes.append("HEALTHCHECK: is not run, as it would run beside what is timed")
    if facts.on_build:
        notes.append("ONBUILD: applies only to images built on this one")
    if facts.stop_signal is not None:
        notes.append(f"STOPSIGNAL {shown(facts.stop_signal)}: is ignored, SIGTERM is sent")
    return notes


def listed(names: Iterable[str]) -> str:
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more


def _in_contract(path: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{_CONTRACT_FOLDER}/")

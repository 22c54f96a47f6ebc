"""The images that a team's Dockerfile builds on or copies from: none of another team's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.engine.image_build import BASE_ARGUMENT
from harness.errors import BuildError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MAX_BYTES = 1 << 20
_MAX_SHOWN = 100  # characters
_ESCAPES = ("\\", "`")  # which of them continues a line, a comment at its top says
_FROM = re.compile(r"\s*(?:ONBUILD\s+)?FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_COPIED = re.compile(r"(?:--|,)from=([^\s,]+)", re.IGNORECASE)
_ARGUMENT = re.compile(r"\s*ARG\s+(\w+)=(\S+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
# Of uploads and runs; the base image that `make base-image` makes is everybody's.
_OTHERS = re.compile(
    r"(?:(?:(?:index\.)?docker\.io|localhost|library)/)*l2r(?:-campaign|-import|_submission)\b.*"
)
_ID = re.compile(r"[0-9a-f]{1,64}|sha256:.*")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


def check_bases(folder: Path, base_image: str | None) -> None:
    """Raises BuildError for a Dockerfile that names, or may name, the image of another upload: by
    a name of the harness's own, or by an ID."""
    try:
        with (folder / "Dockerfile").open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError:  # the engine will say so
        return
    if len(raw) > _MAX_BYTES:
        raise BuildError(f"{folder / 'Dockerfile'}: expected at most 1 MiB, found more")
    given = {} if base_image is None else {BASE_ARGUMENT: base_image}
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    for escape in _ESCAPES:  # whichever the engine takes
        for name in _named(_joined(text, escape), given):
            if name != base_image and not _is_free(name):
                raise BuildError(
                    f"{folder / 'Dockerfile'}: expected the plain name of a public image, with its "
                    f"tag, found {harmless_line(name, _MAX_SHOWN)!r}: names of the harness's own "
                    "and IDs may be another team's image"
                )


def _is_free(name: str) -> bool:
    return bool(_PLAIN.fullmatch(name) and not _OTHERS.fullmatch(name) and not _ID.fullmatch(name))


def _joined(text: str, escape: str) -> Iterator[str]:
    line = ""
    for part in text.splitlines():
        if part.lstrip().startswith("#"):
            continue
        line += part.rstrip().removesuffix(escape)
        if not part.rstrip().endswith(escape):
            yield line
            line = ""
    yield line


def _named(lines: Iterator[str], given: Mapping[str, str]) -> Iterator[str]:
    """Images, without the stages of the same file."""
    arguments = dict(given)
    stages: set[str] = set()
    begun = 0
    for line in lines:
        if (argument := _ARGUMENT.match(line)) and not begun:
            arguments.setdefault(argument[1], argument[2].strip("\"'"))
        if found := _FROM.match(line):
            name = _VARIABLE.sub(lambda match: _value(match, arguments), found[1])
            if name.lower() not in stages:
                yield name
            stages |= {str(begun), (found[2] or str(begun)).lower()}
            begun += 1
        elif line.split(maxsplit=1)[:1]:
            for name in _COPIED.findall(line):
                if name.strip("\"'").lower() not in stages:
                    yield name.strip("\"'")


def _value(match: re.Match[str], arguments: Mapping[str, str]) -> str:
    return arguments.get(match[1] or match[2]) or match[3] or match[0]

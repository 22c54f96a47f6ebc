"""docs/organisers.md is followed line by line, by people in a hurry: what it says must be there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from harness.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/organisers.md"
_SHOWN = re.compile(r"^```.*?\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(?P<line>(?:harness|make) [^`]+)`")
_NAME = re.compile(r"(?:harness|make) [a-z-]+")  # of a command that the text speaks of
_ENDS = {"|", ">", "2>", "2>&1", "&", "&&", ";", "#", "..."}  # of what the shell gives a program


def lines_of(text: str) -> Iterator[str]:
    """Every command line that a page shows: after `$ ` in a block, or between backticks."""
    for block in _SHOWN.finditer(text):
        joined = block["body"].replace("\\\n", " ")
        yield from (line[2:] for line in joined.splitlines() if line.startswith("$ "))
    inline = (match["line"] for match in _INLINE.finditer(_SHOWN.sub("", text)))
    yield from (f"{line} --help" if _NAME.fullmatch(line) else line for line in inline)


def commands_of(line: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program in one line of a shell."""
    words = shlex.split(line, comments=True)
    for at, word in enumerate(words):
        if word == program and (at == 0 or words[at - 1] in _ENDS or "=" in words[at - 1]):
            ends = [n for n, one in enumerate(words[at:], at) if one in _ENDS]
            yield words[at + 1 : min(ends, default=len(words))]


def parse(arguments: list[str]) -> None:
    """By the command's own parser, which runs nothing. Raises what the command would end with."""
    command: Any = typer.main.get_command(app)
    name, rest, context = "harness", arguments, None
    while rest != ["--help"]:
        context = command.make_context(name, list(rest), parent=context)
        if not hasattr(command, "resolve_command"):
            break
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)


def shown(program: str) -> list[str]:
    found = [
        shlex.join(arguments)
        for line in lines_of(PAGE.read_text("utf-8"))
        for arguments in commands_of(line, program)
    ]
    return sorted(set(found))


def test_commands_are_found() -> None:
    text = "Say `harness status --json`.\n"
    text += "```\n$ A=1 harness show \\\n  runs/a | head\nharness no\n```\n"
    found = [one for line in lines_of(text) for one in commands_of(line, "harness")]
    assert found == [["show", "runs/a"], ["status", "--json"]]


@pytest.mark.parametrize("line", ["status --jsn", "campain uploads", "drop", "cluster work x:1"])
def test_what_is_no_command_is_told(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse(shlex.split(line))


@pytest.mark.parametrize("line", shown("harness"))
def test_every_command_line_of_it_is_one(line: str) -> None:
    parse(shlex.split(line))


@pytest.mark.parametrize("line", shown("make"))
def test_every_target_of_make_is_one(line: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = [word for word in shlex.split(line) if "=" not in word and word != "--help"]
    assert [one for one in targets if f"\n{one}: " not in makefile] == []


def test_it_shows_every_command_of_a_night() -> None:
    commands = {line.split()[0] for line in shown("harness")}
    asked = {"doctor", "campaign", "status", "retry", "drop", "show", "compare", "evaluate"}
    assert asked - commands == set()


def test_what_an_organiser_adds_to_the_repository_stays_out_of_git_and_of_builds() -> None:
    """Half a gigabyte of uploads was sent to the engine with every build of the reference."""
    for page, entry in ((".gitignore", "/submissions/"), (".dockerignore", "submissions/")):
        assert entry in (REPOSITORY / page).read_text("utf-8").splitlines()

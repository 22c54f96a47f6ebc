"""How the commands' help looks."""

# ruff: noqa: ANN401 - the types that Typer has here are private, and differ between its versions

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperGroup


class PlainHelp(TyperGroup):
    """Flags without the type that Typer gives them (``--json <bool>``: they take no value), and
    paragraphs that wrap where the terminal ends, not where the docstring does."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_types(command.get_params(ctx))
            command.help = _rewrapped(command.help)
        return command


def _without_types(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


def _rewrapped(text: str | None) -> str | None:
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)

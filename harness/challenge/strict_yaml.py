"""YAML without its trap: of a key that stands twice in one place, the first is lost in silence."""

from __future__ import annotations

import re
from typing import Any

import yaml

_BARE_PATTERN = re.compile(r"[^'\"#]*\{(?:fixed|moving)[^'\"]*")  # a whole line


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:  # as written: what `<<` brings may be overridden
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str, *, name: str) -> object:
    """The content of one document, plain types only. Raises YAMLError, also for a repeated key.

    ``name``: the file's, for the message.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        told = str(error).replace("<unicode string>", name)  # what PyYAML calls any text
        raise yaml.YAMLError(told + _hint(error, text)) from error
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        # What PyYAML lets through of a value that is none (the date 2026-99-99, a number of 5000
        # digits, !!bool perhaps), and of a thousand brackets.
        raise yaml.YAMLError(f"a value in {name} cannot be read: {error}") from error


def _hint(error: yaml.YAMLError, text: str) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines) or not _BARE_PATTERN.fullmatch(lines[mark.line]):
        return ""
    return '\nPut a text with braces into quotes, as in "{fixed_name}.nii.gz"'

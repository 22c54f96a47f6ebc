"""What is wrong with a YAML file, told by key: expected, found, and what was perhaps meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Model = type[BaseModel]

_OURS = "Value error, "  # pydantic's words before the message of a validator of ours
_WORDS = (  # pydantic's and ours
    ("Input should be", "expected"),
    ("greater than", "more than"),
    ("String should", "expected to"),
    ("Tuple should", "expected to"),
    (" tuple", " list"),
    (" after validation", ""),
    (", not 0", ""),
)
_KINDS: dict[type, str] = {
    type(None): "nothing",
    dict: "a mapping",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
_MAX_SHOWN = 60  # characters of a file's own text that a message repeats


def findings(error: ValidationError, root: Model) -> list[str]:
    """One line a finding, ``key: what is wrong``, for content that was validated as ``root``."""
    return [_describe(item, root) for item in error.errors() if not _is_echo(item)]


def did_you_mean(found: object, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """``; did you mean 'x'?`` for the nearest of what is known; empty when nothing is near."""
    near = difflib.get_close_matches(str(found), list(known), n=1, cutoff=likeness)
    return f"; did you mean {near[0]!r}?" if near else ""


def kind_of(value: object) -> str:
    """What a file has where something else was expected, in plain words."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _is_echo(item: ErrorDetails) -> bool:
    """Is it a list that is too short only because items with findings of their own left it?"""
    return item["type"] == "too_short" and item["ctx"]["actual_length"] < len(item["input"])


def _describe(item: ErrorDetails, root: Model) -> str:
    models, path = _walk(root, item["loc"])
    if len(path) > 1 and path[-1] == "[key]" and item["type"] != "extra_forbidden":
        path.pop()  # pydantic's word for a mapping's key that is wrong, which stands before it
    found, context = item["input"], item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            known = [key for model in models for key in _keys(model)]
            meant = did_you_mean(path[-1], known) or f"; known here are {', '.join(known)}"
            problem = f"unknown key{meant}"
        case "missing":
            missing = "a value" if isinstance(item["loc"][-1], int) else "this key"
            problem = f"expected {missing}, found none"
        case "enum" | "literal_error":
            expected = context["expected"]
            meant = did_you_mean(found, _quoted(expected))
            problem = f"expected {expected}, found {_shown(found)}{meant}"
        case "union_tag_invalid":
            path.append("format")
            expected, tag = context["expected_tags"], context["tag"]
            meant = did_you_mean(tag, _quoted(expected))
            problem = f"expected {expected.replace(', ', ' or ')}, found {tag!r}{meant}"
        case "value_error":
            problem = item["msg"].removeprefix(_OURS)
        case "string_pattern_mismatch":
            problem = f"expected {_description(models, path[-1])}, found {_shown(found)}"
        case "string_type" if isinstance(found, dict):
            problem = "expected a text, found a mapping; a text with braces needs quotes around it"
        case _:
            problem = f"{_in_our_words(item['msg'])}, found {_shown(found)}"
    return f"{'.'.join(path)}: {problem}"


def _in_our_words(message: str) -> str:
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message


def _walk(root: Model, place: tuple[int | str, ...]) -> tuple[list[Model], list[str]]:
    """The models that may hold the last part of a place, and the place as the file has it.

    pydantic adds to a place which of several models it tried; the file knows nothing of that.
    """
    models = [root]
    path: list[str] = []
    for n, part in enumerate(place):
        if tagged := [model for model in models if len(models) > 1 and _tag(model) == part]:
            models = tagged
            continue
        path.append(str(part))
        below = [annotation for model in models for annotation in _values(model, part)]
        if below and n < len(place) - 1:
            models = [model for annotation in below for model in _models_in(annotation)]
    return models, path


def _tag(model: Model) -> str | None:
    """What the model's key ``format`` must be."""
    field = model.model_fields.get("format")
    return next(iter(get_args(field.annotation)), None) if field is not None else None


def _values(model: Model, key: object) -> Iterator[Any]:
    yield from (field.annotation for field in _fields(model, key))


def _description(models: list[Model], key: str) -> str:
    """What a key's text must be, as its model says beside the pattern."""
    told = (field.description for model in models for field in _fields(model, key))
    return next((text for text in told if text), "another text")


def _fields(model: Model, key: object) -> Iterator[FieldInfo]:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            yield field


def _models_in(annotation: object) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _keys(model: Model) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _quoted(text: str) -> list[str]:
    """The words in single quotes: ``'full' or 'half'`` gives full and half."""
    return text.split("'")[1::2]


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."

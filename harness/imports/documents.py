"""The JSON documents of an image, read so that no two readers can understand them differently.

Go, which the engines are written in, takes keys in any case and the last of two that are the same;
so a key that only looks like one of ours, or comes twice, is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.imports.limits import ImageFileError
from harness.imports.tar import shown

_MAX_LIST = 10_000  # of anything

SHA256_PATTERN = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[str, Field(pattern=SHA256_PATTERN)]
Model = TypeVar("Model", bound=BaseModel)


class Document(BaseModel):
    """Keys that we do not read may be there; none may look like one that we do."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _exact_keys(cls, data: object) -> object:
        if isinstance(data, dict):
            ours = {field.alias or name for name, field in cls.model_fields.items()}
            folded = {name.casefold() for name in ours}
            odd = [key for key in data if key not in ours and str(key).casefold() in folded]
            if odd:
                raise ValueError(f"the key {shown(odd[0])} is spelt in a way of its own")
        return data


class SavedImage(Document):
    """An entry of ``manifest.json``."""

    config: str = Field(alias="Config")
    layers: list[str] = Field(alias="Layers", max_length=_MAX_LIST)
    repo_tags: list[str] | None = Field(default=None, alias="RepoTags", max_length=_MAX_LIST)


class Platform(Document):
    os: str = ""
    architecture: str = ""


class Descriptor(Document):
    """Of the OCI: what is named by its digest."""

    media_type: str = Field(default="", alias="mediaType")
    digest: Digest
    size: int = Field(ge=0)
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(Document):
    manifests: list[Descriptor] = Field(max_length=_MAX_LIST)


class Manifest(Document):
    config: Descriptor
    layers: list[Descriptor] = Field(max_length=_MAX_LIST)


class Healthcheck(Document):
    test: list[str] | None = Field(default=None, alias="Test")


class ContainerDefaults(Document):
    """``config`` of an image's configuration, as far as something here depends on it."""

    user: str | None = Field(default=None, alias="User")
    environment: list[str] | None = Field(default=None, alias="Env", max_length=_MAX_LIST)
    entrypoint: list[str] | None = Field(default=None, alias="Entrypoint", max_length=_MAX_LIST)
    command: list[str] | None = Field(default=None, alias="Cmd", max_length=_MAX_LIST)
    volumes: dict[str, dict[str, Any] | None] | None = Field(default=None, alias="Volumes")
    ports: dict[str, dict[str, Any] | None] | None = Field(default=None, alias="ExposedPorts")
    labels: dict[str, str] | None = Field(default=None, alias="Labels")
    healthcheck: Healthcheck | None = Field(default=None, alias="Healthcheck")
    on_build: list[str] | None = Field(default=None, alias="OnBuild", max_length=_MAX_LIST)
    stop_signal: str | None = Field(default=None, alias="StopSignal")
    working_dir: str | None = Field(default=None, alias="WorkingDir")


class RootFs(Document):
    type: str
    diff_ids: list[Digest] = Field(max_length=_MAX_LIST)


class ImageConfig(Document):
    """The configuration; its SHA-256 is the image's ID."""

    architecture: str
    os: str
    created: str | None = None
    config: ContainerDefaults | None = None
    rootfs: RootFs


def parse(data: bytes, what: str) -> object:
    """The JSON in ``data``. Raises ImageFileError; ``what`` names the document."""
    try:
        content: object = json.loads(
            data.decode("utf-8", "strict"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
        # Half a character, which every reader replaces in a way of its own.
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ImageFileError(f"{what}: expected JSON, found it nested too deeply") from error
    except ValueError as error:  # of JSON, of UTF-8, of huge numbers
        raise ImageFileError(f"{what}: expected JSON, found none: {shown(str(error))}") from error
    return content


def read(model: type[Model], data: object, what: str) -> Model:
    """``data`` as the model. Raises ImageFileError with what does not fit."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ImageFileError(
            f"{what}: {shown(place) + ': ' if place else ''}{shown(first['msg'])}; build and save "
            "the image again"
        ) from error
    except RecursionError as error:
        raise ImageFileError(f"{what}: expected JSON, found it nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that occurs twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"the number {name}")

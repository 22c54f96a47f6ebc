"""How a challenge runs a container: mounts, arguments, limits, and the zip that is uploaded."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness.challenge.pattern import Pattern, names_in
from harness.challenge.quantity import Bytes, Seconds, format_bytes

# With fewer no container starts: what starts it opens files under this limit already.
_FEWEST_OPEN_FILES = 16


class Part(BaseModel):
    """A part of a challenge's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Mount(Part):
    """One bind mount of the container contract: ``data`` read-only, ``output`` writable."""

    source: Literal["data", "output"]
    target: Annotated[
        str,
        Field(
            pattern=r"^/[^:,]+$",
            description="an absolute path in the container, without colon and comma",
        ),
    ]
    path: Pattern = "."

    @model_validator(mode="after")
    def _path_is_one_of_data(self) -> Mount:
        if names_in(self.path):
            raise ValueError(f"expected path to name one file or folder, found {self.path!r}")
        if self.source == "output" and PurePosixPath(self.path) != PurePosixPath():
            raise ValueError("path is for source: data; the output folder is mounted whole")
        return self

    @property
    def is_whole_data(self) -> bool:
        return self.source == "data" and PurePosixPath(self.path) == PurePosixPath()


class ContainerContract(Part):
    mounts: tuple[Mount, ...]
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)

    @field_validator("mounts")
    @classmethod
    def _one_output(cls, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        if [m.source for m in mounts].count("output") != 1:
            raise ValueError("expected exactly one mount with source: output")
        targets = [m.target.rstrip("/") for m in mounts]
        if twice := sorted({target for target in targets if targets.count(target) > 1}):
            raise ValueError(f"expected a target each, found {twice[0]} twice")
        return mounts


class Upload(Part):
    """The zip that teams upload: fields in the output folder's layout, and ``dummy_file`` at its
    top level where the challenge's site wants one (any file there will do)."""

    dummy_file: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            description="a file's name of letters, digits, _, - and ., a letter or digit first",
        ),
    ] = None


class Limits(Part):
    """What a run may use. Sizes in bytes, durations in seconds.

    The deadline of a run is ``setup_time_s + pair_time_s * pairs``. ``longest_pair_s``: no single
    pair may keep the run for longer, counted from its first access or from the field before it,
    whichever is later. ``idle_time_s``: a submission that touches no file and uses no CPU for so
    long is taken to hang.

    ``temporary_bytes`` is the size of ``/tmp``, which lies in memory and counts towards it.
    ``scratch_bytes``: what it may write elsewhere in its container, and in files it has deleted and
    still holds open. ``output_files`` counts folders too.

    ``reserve_cpu`` allows the harness to keep one of several CPUs from the submission, for a
    witness that gets no real-time scheduling.
    """

    memory_bytes: Bytes = Field(alias="memory", gt=0)  # for a container engine 0 is no limit
    shared_memory_bytes: Bytes = Field(alias="shared_memory", gt=0)
    processes: PositiveInt
    setup_time_s: Seconds = Field(alias="setup_time")
    pair_time_s: Seconds = Field(alias="pair_time")
    longest_pair_s: Seconds = Field(alias="longest_pair", default=3600.0)
    idle_time_s: Seconds = Field(alias="idle_time", default=600.0)
    output_bytes: Bytes = Field(alias="output_size", gt=0)
    output_files: PositiveInt = 100_000
    temporary_bytes: Bytes = Field(alias="temporary_size", default=4 << 30, gt=0)
    scratch_bytes: Bytes = Field(alias="scratch_size", default=16 << 30, gt=0)
    open_files: Annotated[int, Field(ge=_FEWEST_OPEN_FILES)] = 16_384
    log_bytes: Bytes = Field(alias="log_size")
    reserve_cpu: bool = True

    @field_validator("shared_memory_bytes")
    @classmethod
    def _part_of_memory(cls, shared_bytes: int, info: ValidationInfo) -> int:
        memory_bytes = info.data.get("memory_bytes", shared_bytes)
        if shared_bytes > memory_bytes:
            raise ValueError(
                f"expected at most memory, {format_bytes(memory_bytes)}, towards which it counts, "
                f"found {format_bytes(shared_bytes)}; set shared_memory as well"
            )
        return shared_bytes

    def deadline_s(self, n_pairs: int) -> float:
        return self.setup_time_s + self.pair_time_s * n_pairs

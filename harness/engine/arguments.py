"""What is asked of the engine for a submission's container: every flag, in one place.

docs/isolation.md says of each why it is there, and what a submission sees of it.
"""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from harness.engine.base import NVIDIA_RUNTIME
from harness.engine.owner import LABEL_PREFIX, OWNER_LABEL, Owner
from harness.errors import BuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.engine.base import BindMount, RunSpec

RUN_LABEL = LABEL_PREFIX + "run"
HELPER_LABEL = LABEL_PREFIX + "helper"
NAME_PREFIX = "l2r-"
TEMPORARY = "/tmp"
# Above what any program of a desktop or a service asks for: where the machine itself runs out of
# memory the kernel takes the submission before the harness (proc(5): -1000 to 1000).
_OOM_SCORE_ADJ = 500
OPEN_FILES = "nofile"  # setrlimit(2)
_FRAME_BYTES = 1 << 20  # of a folder that holds nothing but what is mounted in it
SYSTEM = tuple(map(PurePosixPath, ("/proc", "/sys", "/dev")))


def unique_name(spec: RunSpec) -> str:
    """A container name that is not taken: the run's, as far as the engine allows its letters."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in spec.name)
    return f"{NAME_PREFIX}{plain[:60]}-{uuid.uuid4().hex[:8]}"


def container_arguments(spec: RunSpec, *, name: str, owner: Owner) -> dict[str, Any]:
    """Keyword arguments of ``docker.containers.create`` for a run. Pure.

    Nothing in it comes from the submission but the image. What an image may say of itself for all
    its containers (environment, labels, health check, stop signal) is overruled here where it
    matters. The output folder must be one that anybody may write to: root in the container has no
    capabilities, so it is anybody.
    """
    limits = spec.limits
    return {
        "image": spec.image.id,
        "command": list(spec.arguments),
        "name": name,
        "hostname": "submission",
        "labels": {OWNER_LABEL: owner.text, RUN_LABEL: spec.name},
        "environment": _environment(spec),
        **_devices(spec),
        "mounts": [made for mount in spec.mounts for made in _mounts(mount)],
        # exec: compilers of kernels (Numba, Triton, torch.compile) load from there what they built.
        "tmpfs": {TEMPORARY: f"rw,exec,nosuid,nodev,mode=1777,size={limits.temporary_bytes}"},
        "read_only": spec.isolation.read_only_root,
        "runtime": spec.isolation.runtime,
        "network_mode": "none",
        "ipc_mode": "private",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],  # and no word of seccomp: the engine's own profile
        "privileged": False,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,  # memory and swap together: no swap
        "oom_score_adj": _OOM_SCORE_ADJ,
        "shm_size": limits.shared_memory_bytes,
        "pids_limit": limits.processes,
        "cpuset_cpus": None if spec.cpuset is None else ",".join(map(str, spec.cpuset)),
        "ulimits": [Ulimit(name=name, soft=n, hard=n) for name, n in _ulimits(spec).items()],
        # An init reaps what a submission leaves behind, and lets SIGTERM end one that has a shell
        # for its main process.
        "init": True,
        "stop_signal": "SIGTERM",  # for whoever else stops it; the harness names its signals
        "healthcheck": {"test": ["NONE"]},  # an image's own would run beside what is timed
        "log_config": LogConfig(type="none"),
        "tty": False,
        "stdin_open": False,
        "detach": True,
    }


def _mounts(mount: BindMount) -> list[Mount]:
    """One, or those that show a folder in part: an empty folder in memory, and in it each thing
    that is meant. The runtime makes the empty folder read-only when their places in it are made."""
    if mount.only is None:
        return [bind(mount)]
    frame = Mount(
        target=mount.target,
        source=None,
        type="tmpfs",
        read_only=True,
        tmpfs_size=_FRAME_BYTES,
        tmpfs_mode=0o755,
    )
    return [frame, *map(bind, _parts(mount))]


def _parts(mount: BindMount) -> list[BindMount]:
    """What is shown of a folder, each for itself; the mount where it is shown whole."""
    return [mount] if mount.only is None else [_part(mount, name) for name in mount.only]


def _part(mount: BindMount, name: str) -> BindMount:
    target = str(PurePosixPath(mount.target, name))
    return dataclasses.replace(
        mount, source=mount.source / name, target=target, read_only=True, only=None
    )


def bind(mount: BindMount) -> Mount:
    """What is mounted on the host later does not appear in the container, nor what is mounted below
    the folder already: a read-only mount would leave that writable."""
    made = Mount(
        target=mount.target,
        source=str(mount.source),
        type="bind",
        read_only=mount.read_only,
        propagation="private",
    )
    made["BindOptions"]["NonRecursive"] = True  # the SDK has no word for it
    return made


def check_sources(mounts: Iterable[BindMount]) -> None:
    """What is to be mounted must be there: some engines would make an empty folder of it, as root.
    Raises EngineError."""
    for part in (part for mount in mounts for part in _parts(mount)):
        if not part.source.exists():
            raise EngineError(
                f"{part.source}: to be mounted at {part.target}, and there is no such file or "
                "folder (any more)"
            )


def _ulimits(spec: RunSpec) -> dict[str, int]:
    """``fsize`` holds in the second between two looks at the disk, and when the harness is killed.
    It counts a file's length, holes included, so it is no tighter than the limits of the disk."""
    limits = spec.limits
    return {
        "core": 0,  # core dumps would fill the disk
        OPEN_FILES: limits.open_files,
        "fsize": max(limits.output_bytes, limits.scratch_bytes),
    }


def _environment(spec: RunSpec) -> dict[str, str]:
    """Which GPUs were chosen for the run is not the challenge's to change."""
    if spec.gpus is None:
        return {**_gpu_variables(spec), **spec.environment}
    return {**spec.environment, **_gpu_variables(spec)}


def _devices(spec: RunSpec) -> dict[str, list[DeviceRequest]]:
    """The GPUs that were chosen for the run; without one nothing is asked for."""
    if not spec.gpus:
        return {}
    wanted = DeviceRequest(device_ids=list(spec.gpus), capabilities=[["gpu"]])
    return {"device_requests": [wanted]}


def _gpu_variables(spec: RunSpec) -> dict[str, str]:
    """NVIDIA's runtime, which an engine may have for its default, hands out what a variable asks
    for: one of the image, unless we set it."""
    if spec.gpus:
        return {
            "NVIDIA_VISIBLE_DEVICES": ",".join(spec.gpus),
            "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        }
    if spec.gpus is None and spec.isolation.runtime == NVIDIA_RUNTIME:
        return {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    return {"NVIDIA_VISIBLE_DEVICES": "void"}


def check_image(spec: RunSpec, config: Mapping[str, Any]) -> None:
    """Refuse an image that cannot run, or asks for what would get around the limits.

    ``config`` is what the engine says of the image ("Config" in its inspection). Raises BuildError.
    """
    name = f"image {spec.image.reference}"
    if not (spec.arguments or config.get("Entrypoint") or config.get("Cmd")):
        raise BuildError(
            f"{name}: expected a program to run, found neither ENTRYPOINT nor CMD; add ENTRYPOINT "
            "to its Dockerfile"
        )
    # runc before 1.1.12 could be made to leave a descriptor of the host's there (CVE-2024-21626).
    workdir = config.get("WorkingDir") or "/"
    if is_below(workdir, SYSTEM):
        raise BuildError(
            f"{name}: expected a WORKDIR of its own, found {workdir!r}, which is the system's; "
            "name another folder in its Dockerfile"
        )
    targets = [PurePosixPath(mount.target) for mount in spec.mounts]
    for volume in sorted(config.get("Volumes") or ()):
        if spec.isolation.read_only_root:
            raise BuildError(
                f"{name}: it declares VOLUME {volume!r}, which could be written in spite of the "
                "read-only root asked for; remove that line from its Dockerfile"
            )
        if PurePosixPath(volume) not in targets and is_below(volume, (*targets, *SYSTEM)):
            raise BuildError(
                f"{name}: it declares VOLUME {volume!r}, which would hide part of what is mounted "
                "there; remove that line from its Dockerfile"
            )


def is_below(path: str | PurePosixPath, folders: tuple[PurePosixPath, ...]) -> bool:
    """Is it one of the folders, or in one? As spelt, with ``.`` and ``..`` taken out."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            parts = parts[:-1]
        elif part.strip("/"):
            parts.append(part)
    clean = PurePosixPath("/", *parts)
    return any(clean == folder or folder in clean.parents for folder in folders)

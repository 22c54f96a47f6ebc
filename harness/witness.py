"""The witness of one run: where it runs, what it watches, and which CPU it may have for itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from harness.engine.base import BindMount, HelperSpec
from harness.errors import ImageMissing, OutputError
from harness.plan import WitnessChoice
from harness.probe.client import PROBE_MODULE, Probe
from harness.probe.realtime import Precision
from harness.probe.spec import WatchSpec
from harness.probe.trace import Placement

if TYPE_CHECKING:
    from harness.engine.base import Engine, Image
    from harness.plan import Plan
    from harness.probe.client import ChildProgram
    from harness.store import RunDirectory

# What the probe in a container sees.
_DATA, _OUTPUT, _TRACE = "/witness/data", "/witness/output", "/witness/trace.jsonl"


def start_witness(
    plan: Plan, engine: Engine, run_dir: RunDirectory, ahead: ChildProgram | None = None
) -> Probe:
    """The probe to enter before the submission's container is made. ``ahead``: its program, when
    that was started already; whoever did so ends it.

    Raises ImageMissing when it must run in a container and there is no image for it.
    """
    spec = WatchSpec(
        placement=choose_placement(plan, engine),
        trace=run_dir.growing_trace,
        data_dir=plan.data_dir,
        output_dir=run_dir.output_dir,
        inputs=tuple(path for pair in plan.pairs for path in pair.inputs),
        fields=tuple(name for pair in plan.pairs for name in pair.field_names),
        realtime=plan.realtime,
        spare_cpu=_spare_cpu(plan, engine),
    )
    if spec.placement is Placement.SIDECAR:
        name = f"witness-of-{run_dir.submission}-{run_dir.run_id}"
        return sidecar(spec, engine, _witness_image(plan, engine), name=name)
    return Probe(spec, ahead)


def choose_placement(plan: Plan, engine: Engine) -> Placement:
    match plan.witness:
        case WitnessChoice.HOST:
            return Placement.HOST
        case WitnessChoice.SIDECAR:
            return Placement.SIDECAR
        case WitnessChoice.AUTO:
            ours = engine.shares_our_kernel(lambda: _witness_image(plan, engine))
            return Placement.HOST if ours else Placement.SIDECAR
        case _:
            assert_never(plan.witness)


def sidecar(spec: WatchSpec, engine: Engine, image: Image, *, name: str) -> Probe:
    """The same probe in a container beside the submission's; ``spec`` has the paths of this side.

    It writes the trace to a file that is mounted for it, which outlives the connection to it.
    """
    try:
        spec.trace.touch()
    except OSError as error:
        raise OutputError(f"{spec.trace}: {error.strerror}") from error
    helper = engine.helper(
        HelperSpec(
            image=image,
            name=name,
            command=("python3", "-P", "-m", PROBE_MODULE),
            mounts=(
                BindMount(source=spec.data_dir, target=_DATA, read_only=True),
                BindMount(source=spec.output_dir, target=_OUTPUT, read_only=True),
                BindMount(source=spec.trace, target=_TRACE, read_only=False),
            ),
            realtime=spec.realtime,
        )
    )
    inside = dataclasses.replace(
        spec, data_dir=Path(_DATA), output_dir=Path(_OUTPUT), trace=Path(_TRACE)
    )
    return Probe(inside, helper, trace=spec.trace)


def _witness_image(plan: Plan, engine: Engine) -> Image:
    try:
        return helper_image(plan, engine)
    except ImageMissing as error:
        raise ImageMissing(
            "the container engine may run on another kernel (a virtual machine, another host), "
            "where file accesses can only be witnessed from a container beside the submission's; "
            f"that needs an image with the harness's probe, and {error}; `make base-image` makes a "
            "base for it without a registry"
        ) from error


def helper_image(plan: Plan, engine: Engine) -> Image:
    """For what helps a run and is not the submission: never an image of the submission's.

    Raises ImageMissing. A witness in the submission's own image would be its own word for its
    runtimes, and a helper that may change the output could write fields after the end.
    """
    name = plan.witness_image
    image = engine.own_image() if name is None else engine.find(name)
    if image.id == plan.image.id:
        raise ImageMissing(f"the image {image.reference} is the submission's own")
    return image


def _spare_cpu(plan: Plan, engine: Engine) -> int | None:
    """The CPU that the submission can do without, if the challenge allows it."""
    if not plan.challenge.limits.reserve_cpu:
        return None
    cpus = engine.cpus()
    return cpus[-1] if len(cpus) > 1 else None


def reserved_cpu(probe: Probe) -> int | None:
    """The CPU that a ready probe moved to, None when it did not."""
    is_reserved = probe.header.precision is Precision.RESERVED_CPU
    return probe.spec.spare_cpu if is_reserved else None


def cpus_left(engine: Engine, probe: Probe) -> tuple[int, ...] | None:
    """The CPUs that a ready probe leaves to the submission, None for all."""
    reserved = reserved_cpu(probe)
    return None if reserved is None else tuple(cpu for cpu in engine.cpus() if cpu != reserved)

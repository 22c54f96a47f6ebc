"""The GPUs, and whether a container can have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.machine.gpu import GpuRecord

_CONFIGURE = (
    "sudo apt-get install -y nvidia-container-toolkit && "
    "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
)


def judge_gpu(
    gpus: Sequence[GpuRecord], driver: str | None, facts: Mapping[str, Any] | None
) -> Finding:
    """``facts``: what the container engine says of itself; None without one."""
    subject = "GPU"
    runtime = "nvidia" in ((facts or {}).get("Runtimes") or {})
    if not gpus:
        if runtime:
            return warning(
                subject,
                "the engine has NVIDIA's runtime, and no GPU answers",
                "the driver is not loaded, or of another version than its library",
                "nvidia-smi",
            )
        return ok(subject, "none: CPU only")
    names = ", ".join(gpu.name for gpu in gpus)
    found = f"{len(gpus)} ({names}), driver {driver or 'unknown'}"
    if facts is not None and not runtime:
        return warning(
            subject,
            f"{found}; the engine lacks NVIDIA's runtime",
            "containers cannot have the GPU",
            _CONFIGURE,
        )
    return ok(subject, f"{found}, {'the engine has' if runtime else 'without'} NVIDIA's runtime")

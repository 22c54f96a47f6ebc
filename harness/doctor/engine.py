"""The container engine: which, and what it says it can do. Pure functions of its own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.doctor.finding import Finding, failure, ok, warning
from harness.errors import EngineMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.errors import EngineError

SUBJECT = "container engine"
_CONTROLS = {
    "MemoryLimit": "memory",
    "PidsLimit": "processes",
    "CPUSet": "CPU sets",
}
_ENABLE_MEMORY = (
    "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&cgroup_enable=memory swapaccount=1 /' "
    "/etc/default/grub && sudo update-grub && sudo reboot"
)
_RESTART = "sudo systemctl restart docker"


def absent(error: EngineError, *, is_installed: bool) -> Finding:
    """``is_installed``: is a program of an engine's here?"""
    until_then = "until then `harness run` uses the process engine, without isolation"
    if not isinstance(error, EngineMissing):
        return warning(SUBJECT, str(error), until_then)
    return warning(
        SUBJECT,
        "installed, and it does not answer" if is_installed else "none is installed",
        until_then,
        "sudo systemctl start docker" if is_installed else "sudo apt-get install -y docker.io",
    )


def judge_engine(facts: Mapping[str, Any], api_version: str) -> Iterator[Finding]:
    """``facts``: what ``docker info`` says, of Docker or of Podman's Docker-compatible service."""
    yield _who(facts, api_version)
    missing = [words for name, words in _CONTROLS.items() if not facts.get(name)]
    if missing:
        yield failure(
            "control groups",
            f"the engine cannot limit {', '.join(missing)}",
            "a submission could take the whole machine; the kernel's controllers must be enabled",
            _ENABLE_MEMORY,
        )
    if not facts.get("SwapLimit"):
        yield warning(
            "swap limit",
            "the engine cannot keep containers from swap",
            "a submission over its memory limit would slow down instead of ending",
            "sudo swapoff -a",
        )


def _who(facts: Mapping[str, Any], api_version: str) -> Finding:
    options = [_option(text) for text in facts.get("SecurityOptions") or ()]
    rootless = "rootless" in options or bool(facts.get("Rootless"))
    version = str(facts.get("CgroupVersion") or "1")
    driver = facts.get("CgroupDriver")
    profile = "seccomp" in options
    found = (
        f"{facts.get('ServerVersion')}, API {api_version}, "
        f"{'rootless' if rootless else 'run by root'}, cgroup version {version} ({driver}), "
        f"storage {facts.get('Driver')}, {'seccomp' if profile else 'no seccomp'}, "
        f"{'AppArmor' if 'apparmor' in options else 'no AppArmor'}"
    )
    if rootless and version == "1":
        return failure(
            SUBJECT,
            found,
            "a rootless engine cannot limit anything with control groups of version 1",
            "sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1",
        )
    if driver == "none":
        return failure(
            SUBJECT,
            found,
            "the engine has no control groups, so no limit holds",
            "sudo systemctl edit docker  # and leave out --exec-opt native.cgroupdriver=none",
        )
    if not profile:
        return failure(
            SUBJECT,
            found,
            "without a seccomp filter a submission may make every system call there is; remove "
            "seccomp-profile from /etc/docker/daemon.json, on a kernel with CONFIG_SECCOMP_FILTER",
            _RESTART,
        )
    if facts.get("Driver") == "vfs":
        return warning(
            SUBJECT,
            found,
            "the storage driver vfs copies the whole image for every container: starts are slow",
            "sudo apt-get install -y fuse-overlayfs",
        )
    return ok(SUBJECT, found)


def _option(text: str) -> str:
    """The name in ``name=seccomp,profile=default``."""
    return text.partition(",")[0].removeprefix("name=")

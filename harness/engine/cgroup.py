"""How much CPU time a container has used, read from its control group: microseconds a look, where
the engine's own statistics take a second."""

from __future__ import annotations

from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")


def cpu_usage_file(cgroup_text: str, container_id: str, *, mount: Path = _MOUNT) -> Path | None:
    """The file that counts a container's CPU time, from its process's ``/proc/<pid>/cgroup``.

    None where it is not to be seen from here. That the group bears the container's name shows that
    the process ID is one of this machine's, not of an engine's in a virtual machine elsewhere.
    """
    for line in cgroup_text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if container_id not in group:
            continue
        folder = group.lstrip("/")
        if "cpuacct" in controllers.split(","):
            found = mount / "cpuacct" / folder / "cpuacct.usage"  # version 1
        elif not controllers:
            found = mount / folder / "cpu.stat"  # version 2
        else:
            continue
        if found.exists():
            return found
    return None


def cpu_seconds(usage_file: Path) -> float | None:
    """CPU time used by all that is or was in the group; None when the group is gone."""
    try:
        text = usage_file.read_text("ascii")
        if usage_file.name == "cpu.stat":
            values = dict(line.split() for line in text.splitlines())
            return int(values["usage_usec"]) * 1e-6
        return int(text) * 1e-9
    except (OSError, ValueError, KeyError):
        return None

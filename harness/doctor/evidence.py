"""What a throwaway container told of itself, and what that says about its limits. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.doctor.finding import Finding, failure, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.challenge.model import Limits

DATA = "/l2r/test"
MEMORY_ASKED_BYTES = 256 << 20
PROCESSES_ASKED = 100
NO_LIMIT = "a submission could do what it likes there: do not run images you do not trust"

# Shell scripts for any image that has sh, cat, head, tail and sleep. Bounded: where the limit does
# not hold, they end by themselves and have hurt nobody. One stream for output and errors: of two,
# an engine may mix up the order, and an error would be taken for a line of a file.
LOOK = f"""
exec 2>&1
for file in status net/dev net/route mounts; do
  echo "== $file"; cat /proc/self/$file
done
echo '== write'; echo x > {DATA}/new && echo 'it was written'
echo '== end'
"""
# Without a line's end in sight, tail keeps all of it in memory.
TAKE_MEMORY = f"head -c {MEMORY_ASKED_BYTES} /dev/zero | tail -n 1 | wc -c; echo end"
TAKE_PROCESSES = f"""
i=0; while [ $i -lt {PROCESSES_ASKED} ]; do sleep 60 & i=$((i + 1)); done; echo all of them
"""

_SIZE = re.compile(r"size=(?P<number>\d+)(?P<unit>[kmg]?)")
_UNIT = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# Tunnels that some kernels put into every network namespace; they lead nowhere without a route.
_IDLE = re.compile(r"lo|tunl\d|sit\d|gre\d|gretap\d|erspan\d|ip_vti\d|ip6_vti\d|ip6tnl\d|ip6gre\d")
# A line of /proc/net/dev, one of /proc/net/route (destination and gateway in hexadecimal digits).
_DEVICE = re.compile(r"\s*(\S+):\s*\d")
_ROUTE = re.compile(r"(\S+)\t[0-9A-F]{8}\t[0-9A-F]{8}\t")


def sections(text: str) -> dict[str, list[str]]:
    """The output of LOOK: lines by the file they come from."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line.removeprefix("== "), [])
        else:
            lines.append(line)
    return found


def judge_look(text: str, limits: Limits, cpuset: tuple[int, ...] | None) -> Iterator[Finding]:
    """``text``: what LOOK printed in a container that was asked to have ``limits``."""
    seen = sections(text)
    if "end" not in seen:
        last = text.strip().splitlines()[-1:] or ["nothing"]
        yield warning(
            "container limits",
            f"the trial container did not say what it is held to ({last[0][:200]})",
            "name an image with a shell",
            "harness doctor --image l2r-base:latest",
        )
        return
    status = dict(line.split(":\t", 1) for line in seen["status"] if ":\t" in line)
    yield _network(seen["net/dev"], seen["net/route"])
    yield _capabilities(status)
    yield _flag("no new privileges", status.get("NoNewPrivs"), "1", "set-user-ID programs work")
    yield _flag("seccomp filter", status.get("Seccomp"), "2", "every system call is allowed")
    yield _read_only(seen["write"], seen["mounts"])
    yield _tmpfs("shared memory", "/dev/shm", limits.shared_memory_bytes, seen["mounts"])
    yield _tmpfs("/tmp", "/tmp", limits.temporary_bytes, seen["mounts"])
    if cpuset is not None:
        yield _cpus(status.get("Cpus_allowed_list"), cpuset)


def _network(devices: list[str], routes: list[str]) -> Finding:
    leading_out = [match[1] for match in map(_DEVICE.match, devices) if match]
    leading_out = [name for name in leading_out if not _IDLE.fullmatch(name)]
    routed = [match[1] for match in map(_ROUTE.match, routes) if match and match[1] != "lo"]
    if leading_out or routed:
        names = ", ".join(dict.fromkeys([*leading_out, *routed]))
        found = f"a container has {names}, with {len(routed)} route{'s' * (len(routed) != 1)}"
        return failure("network", found, f"--network none does not hold; {NO_LIMIT}")
    return ok("network", "none: no interface leads out of a container")


def _capabilities(status: dict[str, str]) -> Finding:
    held = {name: status.get(name, "?") for name in ("CapPrm", "CapEff", "CapBnd")}
    if all(set(value.strip()) == {"0"} for value in held.values()):
        return ok("capabilities", "none")
    words = ", ".join(f"{name} {value}" for name, value in held.items())
    return failure("capabilities", words, f"--cap-drop ALL does not hold; {NO_LIMIT}")


def _flag(subject: str, value: str | None, wanted: str, otherwise: str) -> Finding:
    if value is None:
        return warning(subject, "the kernel does not tell", "use a kernel that is not as old")
    if value.strip() == wanted:
        return ok(subject, "in force")
    return failure(subject, f"not in force ({value.strip()})", f"{otherwise}; {NO_LIMIT}")


def _read_only(write: list[str], mounts: list[str]) -> Finding:
    options = _options(DATA, mounts)
    if options is None:
        return failure(
            "read-only data",
            f"nothing is mounted at {DATA}",
            "the engine does not see the folders of this machine; use one that runs here",
        )
    if "it was written" in write or "ro" not in options:
        return failure(
            "read-only data",
            "it could be written",
            f"a submission may change its inputs; {NO_LIMIT}",
        )
    return ok("read-only data", "a container cannot write it")


def _tmpfs(subject: str, place: str, size_bytes: int, mounts: list[str]) -> Finding:
    options = _options(place, mounts)
    match = None if options is None else _SIZE.fullmatch(_size_option(options))
    wanted = format_bytes(size_bytes)
    if match is None:
        found = "no limit of its own" if options is None else f"mounted as {','.join(options)}"
        return failure(
            subject, found, f"expected a file system in memory of {wanted}: it may fill the disk"
        )
    size = int(match["number"]) * _UNIT[match["unit"]]
    if size == size_bytes:
        return ok(subject, f"as large as asked for ({wanted})")
    return failure(
        subject, f"{format_bytes(size)} in place of {wanted}", "the engine ignores the size"
    )


def _size_option(options: list[str]) -> str:
    return next((option for option in options if option.startswith("size=")), "")


def _options(place: str, mounts: list[str]) -> list[str] | None:
    """Of what is mounted at a place, the topmost, in ``/proc/mounts``."""
    found = None
    for line in mounts:
        fields = line.split()
        if len(fields) > 3 and fields[1] == place:
            found = fields[3].split(",")
    return found


def _cpus(allowed: str | None, cpuset: tuple[int, ...]) -> Finding:
    wanted = ",".join(map(str, cpuset))
    if allowed is not None and allowed.strip() == wanted:
        return ok("CPU set", f"a container stays on the CPU it is given ({wanted})")
    return failure(
        "CPU set",
        f"CPUs {allowed} in place of {wanted}",
        "the witness's CPU cannot be kept free: runtimes are up to 25 ms off",
    )


def judge_memory_trial(text: str, limit_bytes: int) -> Finding:
    """``text``: what TAKE_MEMORY printed under the limit, swap included."""
    asked, limit = format_bytes(MEMORY_ASKED_BYTES), format_bytes(limit_bytes)
    counts = [line for line in text.split() if line.isdigit()]
    if str(MEMORY_ASKED_BYTES) in counts:
        return failure(
            "memory limit",
            f"{asked} were used where {limit} were allowed, in memory or swap",
            "a submission can take all memory; the engine must be able to limit memory and swap "
            "(boot with cgroup_enable=memory swapaccount=1, or turn swap off)",
            "sudo swapoff -a",
        )
    if not counts and "end" not in text.split():
        return warning(
            "memory limit",
            "the trial container said nothing",
            "name an image with a shell",
            "harness doctor --image l2r-base:latest",
        )
    return ok("memory limit", f"a program that took {asked} was killed at {limit}, without swap")


def judge_processes_trial(text: str, limit: int) -> Finding:
    """``text``: what TAKE_PROCESSES printed under the limit."""
    if "all of them" in text:
        return failure(
            "process limit",
            f"{PROCESSES_ASKED} processes ran where {limit} were allowed",
            "a fork bomb takes the machine; the kernel's pids controller must be enabled",
            "grep pids /proc/cgroups",
        )
    if "fork" not in text.lower() and "resource" not in text.lower():
        return warning(
            "process limit",
            f"the trial ended without a word of it ({text.strip()[-100:] or 'nothing'})",
            "name an image with a shell",
            "harness doctor --image l2r-base:latest",
        )
    return ok("process limit", f"a container that started {PROCESSES_ASKED} was held at {limit}")

"""Making what a submission left in its output folder the harness's own.

Root in a container without capabilities is still root on the disk: what it writes belongs to root,
in folders that nobody else may enter if it says so. Then the harness's user can neither read a
field nor delete the folder. Called when the container is gone: nobody changes anything meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

from harness.engine.arguments import NAME_PREFIX
from harness.engine.base import BindMount, HelperSpec
from harness.engine.helper import helper_arguments
from harness.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.engine.base import Image
    from harness.engine.owner import Owner

TIMEOUT_S = 120.0
_INSIDE = "/output"
# Neither follows a link. A program that would run with its owner's rights loses that, above all.
_SCRIPT = 'chown -hR "$1" "$2" && chmod -R u+rwX,a-s,-t "$2"'
# To give files away; to change the mode of what is not one's own; to enter what is closed.
_CAPABILITIES = ["CHOWN", "FOWNER", "DAC_OVERRIDE"]


def is_ours(folder: Path) -> bool:
    """Does all in it belong to this user, who may enter every folder and read every file?"""
    wrong = (
        *("(", "!", "-user", str(os.geteuid())),
        *("-o", "-type", "d", "!", "-perm", "-700"),
        *("-o", "-type", "f", "!", "-perm", "-400"),
        *("-o", "-perm", "/6000", ")"),
    )
    found = _run(("find", "-P", str(folder.absolute()), *wrong, "-print", "-quit"))
    return found.returncode == 0 and not found.stdout


def make_ours(folder: Path) -> None:
    """With this user's own rights, which for root are all. Raises EngineError."""
    owner = f"{os.geteuid()}:{os.getegid()}"
    done = _run(("sh", "-c", _SCRIPT, "sh", owner, str(folder.absolute())))
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise EngineError(f"{folder}: what is in it cannot be made yours: {' '.join(words)}")


def handover_arguments(
    image: Image, folder: Path, *, owner: Owner, rootless: bool
) -> dict[str, Any]:
    """Keyword arguments of ``docker.containers.create``: a root that may change owners and modes,
    of one folder. Pure but for the user's ID.

    Root of an engine without root's rights is the user who started that engine.
    """
    spec = HelperSpec(
        image=image,
        name="hand-over",
        command=("sh", "-c", _SCRIPT, "sh"),
        mounts=(BindMount(source=folder.absolute(), target=_INSIDE, read_only=False),),
    )
    name = f"{NAME_PREFIX}{spec.name}-{uuid.uuid4().hex[:8]}"
    return {
        **helper_arguments(spec, name=name, owner=owner),
        "command": ["0:0" if rootless else f"{os.geteuid()}:{os.getegid()}", _INSIDE],
        "user": "0:0",
        "cap_add": _CAPABILITIES,
        # Where the engine maps users, only the machine's own root may give a file to its users.
        "userns_mode": None if rootless else "host",
        "stdin_open": False,
        "detach": True,
    }


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            env={"LC_ALL": "C", "PATH": os.defpath},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{command[0]} over what a submission left: {error}") from error

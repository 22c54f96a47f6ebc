"""The home and temporary folder of a run without a container, and those that dead harnesses left.

Its name says whose it is: nothing in it is safe from the method, which may tidy up as it likes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from harness.engine.owner import Owner

_PREFIX = "harness-run-"
_DIGEST_CHARACTERS = 12


def make_home() -> Path:
    """A new folder that only this user enters."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_name_of(Owner.current())}-"))


def sweep_homes() -> None:
    """Remove those of harness processes that are gone, of this machine's boot and namespace; one
    that stays is in nobody's way."""
    ours = Owner.current()
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*-*-*"):
        where, pid, start, _ = path.name.removeprefix(_PREFIX).split("-", 3)
        owner = replace(ours, pid=pid, start=start)
        if where == _where(ours) and pid.isdecimal() and not path.is_symlink() and owner.is_dead():
            shutil.rmtree(path, ignore_errors=True)


def _name_of(owner: Owner) -> str:
    return f"{_where(owner)}-{owner.pid}-{owner.start}"


def _where(owner: Owner) -> str:
    """What tells apart two processes of the same number and start."""
    text = "\0".join((owner.namespace, owner.boot, owner.machine, str(os.geteuid())))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]

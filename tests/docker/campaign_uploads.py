"""What the teams of a small campaign hand in, good and bad: images of 4 MB that run for a second.

Every image is one layer that all share (a shell and a few commands) and one of its own, put into a
tar by hand as `docker save` would, so that making all of them takes no container and no build.
"""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.campaign.order import Outcome
from harness.challenge.field_file import FieldState
from harness.errors import Blame
from harness.store import RunStatus
from tests.evaluation_data import write_labels
from tests.image_files import Members, config_of, pack, saved
from tests.tiny import write_data

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from docker import DockerClient

PAIRS = {"task_01": ((1, 2), (2, 3)), "task_02": ((7, 8),)}
N_PAIRS = 3
LONGEST_PAIR_S = 2.0
SETTLED_S = 2.1  # after so long, a file's times tell whether it has changed since
_TICK_S = 0.01  # of the kernel's clock for files, and more

CHALLENGE = f"""
schema_version: 1
name: tiny
title: Tiny challenge
container:
  mounts:
    - {{source: data, target: /l2r/test}}
    - {{source: output, target: /l2r/submission}}
limits:
  memory: 48MiB
  shared_memory: 16MiB
  processes: 64
  setup_time: 60s
  pair_time: 10s
  longest_pair: {LONGEST_PAIR_S:.0f}s
  output_size: 16MiB
  temporary_size: 16MiB
  scratch_size: 64MiB
  log_size: 64KiB
tasks:
  - &task
    name: task_01
    title: First
    pairs: {{format: csv, path: task_01/pairs_val.csv}}
    images:
      fixed: task_01/img{{fixed:04d}}.nii.gz
      moving: task_01/img{{moving:04d}}.nii.gz
    image_grid: [16, 12, 20]
    field: {{path: "task_01/disp_{{fixed:04d}}_{{moving:04d}}.npz", resolution: half,
            shape: [3, 8, 6, 10], dtype: float16}}
    truth:
      fixed_labels: task_01/seg{{fixed:04d}}.nii.gz
      moving_labels: task_01/seg{{moving:04d}}.nii.gz
      labels: [1, 2]
    metrics: [dice, sdlogj]
  - <<: *task
    name: task_02
    title: Second
    pairs: {{format: csv, path: task_02/pairs_val.csv}}
    images:
      fixed: task_02/img{{fixed:04d}}.nii.gz
      moving: task_02/img{{moving:04d}}.nii.gz
    field: {{path: "task_02/disp_{{fixed:04d}}_{{moving:04d}}.npz", resolution: half,
            shape: [3, 8, 6, 10], dtype: float16}}
    truth:
      fixed_labels: task_02/seg{{fixed:04d}}.nii.gz
      moving_labels: task_02/seg{{moving:04d}}.nii.gz
      labels: [1, 2]
"""

# Only what the shell itself lacks; each program brings the libraries it is linked to.
_ROOT_SCRIPT = """
set -e
mkdir -p /root-layer/bin /root-layer/etc /root-layer/tmp
for name in sh cat cp mv ln sleep truncate; do
  cp -L "$(command -v $name)" /root-layer/bin/
  ldd "$(command -v $name)" | grep -o '/[^ ]*'
done | sort -u | while read -r library; do
  mkdir -p "/root-layer${library%/*}"
  cp -L "$library" "/root-layer$library"
done
"""

# `register TASK FIXED MOVING FIELD`: what a good method does.
_REGISTER = """
register() {
  cat "/l2r/test/$1/img$2.nii.gz" "/l2r/test/$1/img$3.nii.gz" > /dev/null
  sleep 0.1
  cp "/fields/$4.npz" "/l2r/submission/$1/.part"
  mv "/l2r/submission/$1/.part" "/l2r/submission/$1/disp_$2_$3.npz"
}
"""


def _all(name: str) -> str:
    return (
        f"register task_01 0001 0002 {name}\n"
        f"register task_01 0002 0003 {name}\n"
        f"register task_02 0007 0008 {name}\n"
    )


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One image. ``program``: its shell script. ``status`` and ``reason`` (a part) of its run,
    ``states`` of its fields in the challenge's order."""

    what: str
    program: str
    status: RunStatus
    reason: str
    states: tuple[FieldState, ...]
    blame: Blame | None = Blame.SUBMISSION
    timed: int = N_PAIRS

    def __post_init__(self) -> None:
        assert len(self.states) == N_PAIRS


_VALID = (FieldState.VALID,) * N_PAIRS
_MISSING = FieldState.MISSING

EXACT = Behaviour(
    what="good: every field is the exact one",
    program=_all("exact"),
    status=RunStatus.SUCCEEDED,
    reason="all 3 fields of the attempted tasks are valid",
    states=_VALID,
    blame=None,
)
HALFWAY = Behaviour(
    what="good, with other fields",
    program=_all("halfway"),
    status=RunStatus.SUCCEEDED,
    reason="all 3 fields of the attempted tasks are valid",
    states=_VALID,
    blame=None,
)
PARTIAL = Behaviour(
    what="takes part in one task of two",
    program="register task_01 0001 0002 exact\nregister task_01 0002 0003 halfway\n",
    status=RunStatus.SUCCEEDED,
    reason="all 2 fields of the attempted tasks are valid",
    states=(FieldState.VALID, FieldState.VALID, FieldState.NOT_ATTEMPTED),
    blame=None,
    timed=2,
)
SLOW = Behaviour(
    what="hangs in its second pair",
    program=(
        "register task_01 0001 0002 exact\n"
        "cat /l2r/test/task_01/img0003.nii.gz > /dev/null\nsleep 600\n"
    ),
    status=RunStatus.TIMED_OUT,
    reason="task_01/0002_0003",
    states=(FieldState.VALID, _MISSING, FieldState.NOT_ATTEMPTED),
    timed=1,
)
CRASHING = Behaviour(
    what="crashes after its first field",
    program="register task_01 0001 0002 exact\necho 'a fatal mistake' >&2\nexit 3\n",
    status=RunStatus.CRASHED,
    reason="exit code 3",
    states=(FieldState.VALID, _MISSING, FieldState.NOT_ATTEMPTED),
    timed=1,
)
HUNGRY = Behaviour(
    what="takes more memory than it may",
    program=(
        "register task_01 0001 0002 exact\nheap=0123456789abcdef\n"
        "while :; do heap=$heap$heap; done\n"
    ),
    status=RunStatus.OUT_OF_MEMORY,
    reason="memory",
    states=(FieldState.VALID, _MISSING, FieldState.NOT_ATTEMPTED),
    timed=1,
)
HOSTILE = Behaviour(
    what="links, a huge file, odd names, the data, commands for the terminal",
    program=(
        "cat /l2r/test/task_01/*.nii.gz > /dev/null\n"
        "ln -s /etc/shadow /l2r/submission/task_01/disp_0001_0002.npz\n"
        "truncate -s 12M /l2r/submission/task_01/disp_0002_0003.npz\n"
        'name=$(printf "a\\nb \\033[2J\\033]0;mine\\007 [bold]c")\n'
        'cp /fields/exact.npz "/l2r/submission/task_01/$name"\n'
        'cp /fields/exact.npz "/l2r/submission/$name"\n'
        "cp /fields/exact.npz /l2r/test/task_01/img0001.nii.gz\n"
        "echo 'fixed,moving' > /l2r/test/task_01/pairs_val.csv\n"
        'printf "\\033[2J\\033[31mrun succeeded\\033]0;mine\\007\\r[red]all valid[/red]\\n"\n'
        "register task_02 0007 0008 exact\n"
    ),
    status=RunStatus.REJECTED,
    reason="2 of 3 fields invalid",
    states=(FieldState.INVALID, FieldState.INVALID, FieldState.VALID),
    timed=1,
)
REFERENCE = Behaviour(
    what="the reference image",
    program=_all("halfway"),
    status=RunStatus.SUCCEEDED,
    reason="all 3 fields of the attempted tasks are valid",
    states=_VALID,
    blame=None,
)


def root_layer(client: DockerClient, base: str) -> bytes:
    """A tar of a root folder in which a shell runs, out of the image ``base``."""
    container = client.containers.create(
        base, ["-c", _ROOT_SCRIPT], entrypoint="sh", network_mode="none"
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs()
        chunks, _ = container.get_archive("/root-layer/.")
        return b"".join(chunks)
    finally:
        container.remove(force=True)


@dataclass(frozen=True, kw_only=True)
class ImageMaker:
    """``label``: of every image, as `docker` takes it, so that they can be told from others."""

    root: bytes
    label: str

    def tar(self, behaviour: Behaviour, *, tag: str = "team:latest") -> bytes:
        """As `docker save` writes it. The same behaviour is the same image, whatever its tag."""
        name, _, value = self.label.partition("=")
        layers = (self.root, pack(self._members(behaviour)))
        config = config_of(
            layers,
            Entrypoint=["/bin/sh", "/program"],
            Labels={name: value},
            Volumes={"/kept": {}},  # which must not be kept
        )
        return pack(saved(layers, config, [tag]))

    def _members(self, behaviour: Behaviour) -> Members:
        program = _REGISTER + behaviour.program
        fields = {f"fields/{name}.npz": content for name, content in FIELDS.items()}
        return {"program": program.encode(), **fields}


def _field(shift_vox: float) -> bytes:
    """Everything moves by so much along x: shape (3, X, Y, Z) at half resolution, full-resolution
    voxels."""
    field = np.zeros((3, 8, 6, 10), np.float16)
    field[0] = shift_vox
    file = io.BytesIO()
    np.savez_compressed(file, field)
    return file.getvalue()


FIELDS = {"exact": _field(2.0), "halfway": _field(1.0)}


def fields_zip(names: Mapping[str, str] | None = None) -> bytes:
    """Of every pair's key the name of its field; None: all are exact."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for task, pairs in PAIRS.items():
            for fixed, moving in pairs:
                key = f"{task}/{fixed:04d}_{moving:04d}"
                name = "exact" if names is None else names.get(key)
                if name is not None:
                    archive.writestr(f"{task}/disp_{fixed:04d}_{moving:04d}.npz", FIELDS[name])
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must come of a team's upload: of ``entry``. ``behaviour``: None for what is not run."""

    team: str
    entry: str
    outcome: Outcome
    behaviour: Behaviour | None = None
    reason: str = ""
    blame: Blame | None = None
    valid_fields: int | None = None

    @classmethod
    def run(cls, team: str, entry: str, behaviour: Behaviour) -> Expected:
        return cls(
            team=team,
            entry=entry,
            outcome=Outcome.RAN,
            behaviour=behaviour,
            reason=behaviour.reason,
            blame=behaviour.blame,
            valid_fields=behaviour.states.count(FieldState.VALID),
        )


class Folder:
    """A campaign's folder, filled as organisers and teams would: ``tiny.yaml``, ``campaign.yaml``,
    ``test/``, ``truth/`` and ``submissions/``."""

    def __init__(self, path: Path, maker: ImageMaker) -> None:
        self.path = path
        self._maker = maker
        self.submissions = path / "submissions"
        self.submissions.mkdir(parents=True)
        self.write_challenge()
        write_data(path / "test", first=PAIRS["task_01"], second=PAIRS["task_02"])
        for task, pairs in PAIRS.items():
            cases = sorted({case for pair in pairs for case in pair})
            for n, case in enumerate(cases):
                write_labels(path / f"truth/{task}/seg{case:04d}.nii.gz", shift=2 * n)

    def write_challenge(self, *changes: tuple[str, str]) -> None:
        text = CHALLENGE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.path / "tiny.yaml").write_text(text)

    def write_policy(self, **keys: object) -> None:
        """``campaign.yaml``. JSON is YAML."""
        (self.path / "campaign.yaml").write_text(json.dumps(keys, indent=1))

    def add(self, entry: str, content: bytes) -> Path:
        """A file among the submissions, later than the one before by the kernel's clock."""
        path = self.submissions / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        time.sleep(_TICK_S)
        path.write_bytes(content)
        return path

    def settle(self) -> None:
        """Until nobody takes it for something that is still being written."""
        time.sleep(SETTLED_S)

    def add_image(self, entry: str, behaviour: Behaviour, *, tag: str = "team:latest") -> Path:
        content = self._maker.tar(behaviour, tag=tag)
        return self.add(entry, gzip.compress(content, 1) if entry.endswith(".gz") else content)

    def add_folder(self, entry: str, behaviour: Behaviour, base: str) -> Path:
        """With a Dockerfile, from the name of an image that has all but the program."""
        program = self.add(f"{entry}/program", (_REGISTER + behaviour.program).encode())
        self.add(f"{entry}/Dockerfile", f"FROM {base}\nCOPY program /program\n".encode())
        return program.parent


DROPPED = frozenset({"dropped"})
REJECTED = frozenset({"_ours.tar", "empty.tar", "link.tar", "notes.txt"})
MARKUP = "[bold]Ärzte & <script>alert(1)</script>[/bold] \x1b[31mred"


def hand_in(folder: Folder, base: str) -> tuple[Expected, ...]:
    """One of everything; ``base``: the name of the reference image, which is here. What must come
    of each that is to be run or refused."""
    folder.add_image("alpha.tar", EXACT)
    folder.add_image("bravo.tar.gz", HALFWAY)
    folder.add_image("partial.tar", PARTIAL)
    folder.add_image("slow.tar", SLOW)
    folder.add_image("crashing.tar", CRASHING)
    folder.add_image("hungry.tar", HUNGRY)
    folder.add_image("hostile/image.tar", HOSTILE)
    folder.add("hostile/team.yaml", f"name: {json.dumps(MARKUP)}\n".encode())
    folder.add("zipped.zip", fields_zip())
    folder.add("scarce.zip", fields_zip({"task_01/0001_0002": "halfway"}))
    folder.add("broken.zip", fields_zip()[:-30])
    folder.add_image("twice/first.tar", CRASHING)
    folder.add_image("twice/second.tar", EXACT)
    folder.add_image("again/image.tar", HALFWAY)
    folder.add_image("again/renamed.tar", HALFWAY, tag="another:name")
    folder.add_folder("built", EXACT, base)
    folder.add("nonsense.tar", b"this is no image, " * 1000)
    folder.add_image("dropped.tar", EXACT)
    for entry in REJECTED - {"link.tar"}:
        folder.add(entry, b"" if entry == "empty.tar" else b"not an upload")
    (folder.submissions / "link.tar").symlink_to("alpha.tar")
    folder.write_policy(
        order=["slow", "alpha"],
        teams={"named": {"image": base}, "dropped": {"drop": "withdrew"}},
        machine_retries=20,
        suspect_reruns=0,  # other programs of this machine decide nothing here
        calibration={"source": base, "every": 6, "threshold": 0.99},
    )
    folder.settle()
    return (
        Expected.run("alpha", "alpha.tar", EXACT),
        Expected.run("bravo", "bravo.tar.gz", HALFWAY),
        Expected.run("partial", "partial.tar", PARTIAL),
        Expected.run("slow", "slow.tar", SLOW),
        Expected.run("crashing", "crashing.tar", CRASHING),
        Expected.run("hungry", "hungry.tar", HUNGRY),
        Expected.run("hostile", "hostile/image.tar", HOSTILE),
        Expected(team="zipped", entry="zipped.zip", outcome=Outcome.FIELDS, valid_fields=3),
        Expected(
            team="scarce",
            entry="scarce.zip",
            outcome=Outcome.FIELDS,
            blame=Blame.SUBMISSION,
            valid_fields=1,
        ),
        Expected(
            team="broken",
            entry="broken.zip",
            outcome=Outcome.REFUSED,
            blame=Blame.SUBMISSION,
        ),
        Expected.run("twice", "twice/second.tar", EXACT),
        Expected.run("again", "again/renamed.tar", HALFWAY),
        Expected.run("built", "built", EXACT),
        Expected.run("named", base, REFERENCE),
        Expected(
            team="nonsense",
            entry="nonsense.tar",
            outcome=Outcome.REFUSED,
            blame=Blame.SUBMISSION,
        ),
    )

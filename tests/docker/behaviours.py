"""What submissions do, good and bad: a program for inside a container, standard library only.

``python3 behaviours.py SCENARIO`` prints one JSON line a step with the clock that the witness uses,
so that a test can compare what was seen with what was done.
"""

from __future__ import annotations

import csv
import ctypes
import json
import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COMPUTE_S = 0.2
TASK = "task_01"
DATA = Path(os.environ.get("HARNESS_DATA_DIR", "/l2r/test"))
OUTPUT = Path(os.environ.get("HARNESS_OUTPUT_DIR", "/l2r/submission"))
SCRATCH = Path(tempfile.gettempdir())
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Pair(NamedTuple):
    fixed: str
    moving: str

    @property
    def key(self) -> str:
        return f"{TASK}/{self.fixed}_{self.moving}"

    @property
    def images(self) -> tuple[Path, Path]:
        return (
            DATA / TASK / f"img{self.fixed}.nii.gz",
            DATA / TASK / f"img{self.moving}.nii.gz",
        )

    @property
    def field(self) -> Path:
        return OUTPUT / TASK / f"disp_{self.fixed}_{self.moving}.npz"


def all_pairs() -> list[Pair]:
    with (DATA / TASK / "pairs_val.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [Pair(f"{int(row['fixed']):04d}", f"{int(row['moving']):04d}") for row in rows]


def stamp(what: str, pair: Pair) -> None:
    line = json.dumps({"what": what, "pair": pair.key, "t_ns": time.monotonic_ns()})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def field_bytes() -> bytes:
    return (DATA / TASK / "field.npz").read_bytes()


def other_field_bytes() -> bytes:
    """Another valid field of the same size."""
    return (DATA / TASK / "other.npz").read_bytes()


# Ways to read a file.


def plain(path: Path) -> None:
    path.read_bytes()


def open_only(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))


def memory_map(path: Path) -> None:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    bytes(mapped)


def c_library(path: Path) -> None:
    _libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(_libc.fopen(os.fsencode(path), b"rb"))
    buffer = ctypes.create_string_buffer(1 << 16)
    while _libc.fread(buffer, 1, len(buffer), file):
        continue
    _libc.fclose(file)


def send_file(path: Path) -> None:
    with path.open("rb") as source, tempfile.TemporaryFile() as target:
        os.sendfile(target.fileno(), source.fileno(), 0, 1 << 20)


def relative_to_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    os.close(os.open(path.name, os.O_RDONLY, dir_fd=folder))
    os.close(folder)


def through_symlink(path: Path) -> None:
    link = SCRATCH / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    link.read_bytes()


def other_program(path: Path) -> None:
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)


def forked_worker(path: Path) -> None:
    in_child(lambda: plain(path))


READS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        plain,
        open_only,
        memory_map,
        c_library,
        send_file,
        relative_to_folder,
        through_symlink,
        other_program,
        forked_worker,
    )
}


# Ways to write a field. Each stamps the moment before and after it completes the field.


def in_place(pair: Pair) -> None:
    with pair.field.open("wb") as file:
        file.write(field_bytes())
        file.flush()
        stamp("finishing", pair)


def rename(pair: Pair) -> None:
    part = pair.field.with_suffix(".part")
    part.write_bytes(field_bytes())
    stamp("finishing", pair)
    part.rename(pair.field)


def exchange(pair: Pair) -> None:
    """Swapped with a placeholder, which then has the other name."""
    pair.field.write_bytes(b"placeholder")
    part = pair.field.with_suffix(".part")
    part.write_bytes(field_bytes())
    stamp("finishing", pair)
    swap(part, pair.field)


def swap(one: Path, other: Path) -> None:
    """What the kernel calls an exchange: both names stay, the contents change places."""
    if _libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    ):
        raise OSError(ctypes.get_errno(), "renameat2")


def link_nameless(pair: Pair) -> None:
    """O_TMPFILE, then linkat."""
    descriptor = os.open(pair.field.parent, os.O_TMPFILE | os.O_RDWR)
    os.write(descriptor, field_bytes())
    root = os.open("/", os.O_RDONLY)  # makes os.link call linkat, which can follow a link
    stamp("finishing", pair)
    os.link(f"/proc/self/fd/{descriptor}", pair.field, src_dir_fd=root, follow_symlinks=True)
    os.close(descriptor)
    os.close(root)


def hard_link(pair: Pair) -> None:
    part = pair.field.with_suffix(".part")
    part.write_bytes(field_bytes())
    stamp("finishing", pair)
    os.link(part, pair.field)
    part.unlink()


def copy_with_mode(pair: Pair) -> None:
    """The mode is set after the close, which changes nothing that counts."""
    part = SCRATCH / "part"
    part.write_bytes(field_bytes())
    stamp("finishing", pair)
    shutil.copy2(part, pair.field)


def written_map(pair: Pair) -> None:
    """Closed long before the mapping, through which the content comes."""
    content = field_bytes()
    descriptor = os.open(pair.field, os.O_RDWR | os.O_CREAT)
    os.truncate(descriptor, len(content))
    mapped = mmap.mmap(descriptor, len(content))
    os.close(descriptor)
    time.sleep(COMPUTE_S)
    mapped[:] = content
    stamp("finishing", pair)
    mapped.close()


def second_descriptor(pair: Pair) -> None:
    pair.field.write_bytes(b"")
    descriptor = os.open(pair.field, os.O_WRONLY)
    pair.field.write_bytes(field_bytes())
    time.sleep(COMPUTE_S)
    os.pwrite(descriptor, field_bytes(), 0)
    stamp("finishing", pair)
    os.close(descriptor)


def killed_writer(pair: Pair) -> None:
    def write_half() -> None:
        content = field_bytes()
        with pair.field.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            stamp("finishing", pair)
            os.kill(os.getpid(), signal.SIGKILL)

    in_child(write_half)


def rewritten(pair: Pair) -> None:
    in_place(pair)
    time.sleep(COMPUTE_S)
    in_place(pair)


def planted_symlink(pair: Pair) -> None:
    stamp("finishing", pair)
    pair.field.symlink_to(DATA / TASK / "field.npz")


# These are completed first and touched again at the end of the scenario, or never completed.


def placeholder_first(pair: Pair) -> None:
    rename(pair)


def truncated_later(pair: Pair) -> None:
    in_place(pair)


def written_later_by_another_name(pair: Pair) -> None:
    in_place(pair)


def written_later_with_a_forged_time(pair: Pair) -> None:
    in_place(pair)


def mode_changed_later(pair: Pair) -> None:
    in_place(pair)


def never_closed(pair: Pair) -> None:
    descriptor = os.open(pair.field, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, field_bytes())


WRITES: dict[str, Callable[[Pair], None]] = {
    function.__name__: function
    for function in (
        in_place,
        rename,
        exchange,
        link_nameless,
        hard_link,
        copy_with_mode,
        written_map,
        second_descriptor,
        killed_writer,
        rewritten,
        planted_symlink,
        placeholder_first,
        truncated_later,
        written_later_by_another_name,
        written_later_with_a_forged_time,
        mode_changed_later,
        never_closed,
    )
}


def write_through_another_name(pair: Pair) -> None:
    """No event of the field's own name tells of this, nor of its folder."""
    alias = OUTPUT / "elsewhere"
    alias.mkdir(exist_ok=True)
    os.link(pair.field, alias / "name")
    with (alias / "name").open("wb") as file:
        file.write(other_field_bytes())
        file.flush()
        stamp("finishing", pair)
    (alias / "name").unlink()


# Steps of a method.


def in_child(action: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    os.waitpid(child, 0)


def read(pair: Pair, how: Callable[[Path], None] = plain) -> None:
    stamp("opening", pair)
    for image in pair.images:
        how(image)
    stamp("opened", pair)


def compute(pair: Pair) -> None:
    time.sleep(COMPUTE_S)
    stamp("computed", pair)


def write(pair: Pair, how: Callable[[Pair], None] = rename) -> None:
    how(pair)
    stamp("finished", pair)


def register(pair: Pair) -> None:
    read(pair)
    compute(pair)
    write(pair)


# Scenarios.


def ways_to_read() -> None:
    """One pair a way; before that, all that is no access."""
    for pair in all_pairs():
        for image in pair.images:
            image.stat()
            os.access(image, os.R_OK)
            os.close(os.open(image, os.O_PATH))
            os.listdir(image.parent)  # noqa: PTH208
    time.sleep(COMPUTE_S)
    for pair, how in zip(all_pairs(), READS.values(), strict=True):
        read(pair, how)
        compute(pair)
        write(pair)


def ways_to_write() -> None:
    by_way = dict(zip(WRITES, all_pairs(), strict=True))
    by_way["placeholder_first"].field.write_bytes(b"nothing yet")
    for name, pair in by_way.items():
        read(pair)
        compute(pair)
        write(pair, WRITES[name])
    time.sleep(COMPUTE_S)
    os.truncate(by_way["truncated_later"].field, 100)
    write_through_another_name(by_way["written_later_by_another_name"])
    forged = by_way["written_later_with_a_forged_time"]
    times = forged.field.stat()
    write_through_another_name(forged)
    os.utime(forged.field, ns=(times.st_atime_ns, times.st_mtime_ns))
    by_way["mode_changed_later"].field.chmod(0o666)
    stamp("ending", by_way["never_closed"])


def one_after_the_other() -> None:
    for pair in all_pairs():
        register(pair)


def shared_image_cached() -> None:
    """A chain: the moving image of a pair is kept as the fixed one of the next."""
    kept: Path | None = None
    for pair in all_pairs():
        stamp("opening", pair)
        for image in pair.images:
            if image != kept:
                plain(image)
        kept = pair.images[1]
        compute(pair)
        write(pair)


def everything_preloaded() -> None:
    for pair in all_pairs():
        read(pair)
    for pair in all_pairs():
        compute(pair)
        write(pair)


def headers_scanned() -> None:
    for pair in all_pairs():
        read(pair, open_only)
    one_after_the_other()


def prefetching_loader() -> None:
    """A worker process that reads two pairs ahead."""
    context = multiprocessing.get_context("fork")
    loaded = context.Queue(maxsize=1)

    def load() -> None:
        for pair in all_pairs():
            read(pair)
            loaded.put(pair)

    worker = context.Process(target=load)
    worker.start()
    for _ in all_pairs():
        pair = loaded.get()
        compute(pair)
        write(pair)
    worker.join()


def all_rewritten_at_the_end() -> None:
    one_after_the_other()
    for pair in all_pairs():
        write(pair)


def computed_first_then_replayed() -> None:
    for pair in all_pairs():
        read(pair)
        compute(pair)
    for pair in all_pairs():
        read(pair)
        write(pair)


def computed_between_the_pairs() -> None:
    """Rubbish for the pairs that own the images, then a long look at the one that shares them."""
    *early, last = all_pairs()
    for pair in early:
        read(pair)
        write(pair)
    for _ in range(6):
        compute(last)
    read(last)
    write(last)


def folder_made_late() -> None:
    folder = all_pairs()[0].field.parent
    folder.rmdir()
    time.sleep(COMPUTE_S)
    folder.mkdir()
    time.sleep(COMPUTE_S)
    one_after_the_other()


def folder_away_and_back() -> None:
    """Everything is where it belongs in the end, though the names were others on the way."""
    folder = all_pairs()[0].field.parent
    away = folder.with_name("away")
    folder.rename(away)
    for pair in all_pairs():
        read(pair)
        compute(pair)
        (away / pair.field.name).write_bytes(field_bytes())
    away.rename(folder)


def folder_put_in_place() -> None:
    """Quick fields in the watched folder; real ones in another, which then takes its name."""
    folder = all_pairs()[0].field.parent
    real = folder.with_name("real")
    real.mkdir()
    for pair in all_pairs():
        read(pair)
        write(pair)
    for pair in all_pairs():
        compute(pair)
        (real / pair.field.name).write_bytes(other_field_bytes())
    folder.rename(folder.with_name("quick"))
    real.rename(folder)


def folders_exchanged() -> None:
    folder = all_pairs()[0].field.parent
    real = folder.with_name("real")
    real.mkdir()
    for pair in all_pairs():
        register(pair)
        (real / pair.field.name).write_bytes(other_field_bytes())
    swap(real, folder)


def folder_over_an_empty_one() -> None:
    """The kernel lets a folder take the place of an empty one."""
    folder = all_pairs()[0].field.parent
    real = folder.with_name("real")
    real.mkdir()
    real.rename(folder)
    time.sleep(COMPUTE_S)
    one_after_the_other()


SCENARIOS: Iterable[Callable[[], None]] = (
    ways_to_read,
    ways_to_write,
    one_after_the_other,
    shared_image_cached,
    everything_preloaded,
    headers_scanned,
    prefetching_loader,
    all_rewritten_at_the_end,
    computed_first_then_replayed,
    computed_between_the_pairs,
    folder_made_late,
    folder_away_and_back,
    folder_put_in_place,
    folders_exchanged,
    folder_over_an_empty_one,
)

if __name__ == "__main__":
    next(s for s in SCENARIOS if s.__name__ == sys.argv[1])()

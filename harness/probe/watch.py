"""The watch itself: read events from the kernel and stamp them at once, decode and write later.

Two threads. The watcher only reads, stamps and hands over; the writer decodes and writes, because a
write can wait for the disk (a journal's commit: tens of milliseconds) and stamps must not.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

from harness.probe import inotify
from harness.probe.realtime import Precision, become_punctual, follow_watcher
from harness.probe.trace import End, Event, FileEvent, Header, Root, to_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePosixPath

    from harness.probe.inotify import RawEvent
    from harness.probe.spec import WatchSpec

_READ_BYTES = 1 << 14  # some 400 events: looking through them delays the next stamp by 0.2 ms
_IDLE_MS = 20  # the writer gets its work when nothing has happened for so long ...
_MAX_PENDING = 4096  # ... or when so many reads are pending ...
_MAX_PENDING_NS = 250_000_000  # ... or for so long
_SAME_CLOSE_NS = 1_000_000  # one close, reported by the folder's watch and then by the file's own
_DATA_MASK = inotify.IN_OPEN | inotify.IN_ONLYDIR
_OUTPUT_MASK = (
    inotify.IN_CREATE
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE
    | inotify.IN_MOVE_SELF
    # What the submission put there may be a link by now, to any folder of the host.
    | inotify.IN_DONT_FOLLOW
    | inotify.IN_ONLYDIR
)
# A folder's watch misses a write through a name that the file has elsewhere; the file's own does
# not, and tells at munmap what was written through a memory map.
_FIELD_MASK = inotify.IN_CLOSE_WRITE | inotify.IN_DONT_FOLLOW
_APPEARED = inotify.IN_CREATE | inotify.IN_MOVED_TO
_EVENTS = {
    inotify.IN_OPEN: Event.OPEN,
    inotify.IN_CREATE: Event.CREATED,
    inotify.IN_CLOSE_WRITE: Event.CLOSED,
    inotify.IN_MOVED_TO: Event.MOVED_IN,
    inotify.IN_MOVED_FROM: Event.MOVED_OUT,
    inotify.IN_DELETE: Event.DELETED,
}
_COMPLETIONS = frozenset({Event.CLOSED, Event.MOVED_IN})


class Watcher:
    """Watches until its control descriptor is closed by the other side.

    The folders of all inputs must exist; folders of fields may appear later.
    """

    def __init__(self, spec: WatchSpec) -> None:
        self._spec = spec
        self._expected = {
            Root.DATA: frozenset(str(path) for path in spec.inputs),
            Root.OUTPUT: frozenset(str(path) for path in spec.fields),
        }
        self._field_folders = {parent for path in spec.fields for parent in path.parents}
        self._names = {path.name for path in self._field_folders.union(spec.fields)}
        # Numbers are never used twice, so an old one still explains a pending event.
        self._folders: dict[int, tuple[Root, PurePosixPath]] = {}
        self._files: dict[int, set[str]] = {}  # watches of fields, and the names they had
        self._closed_ns: dict[str, int] = {}
        self._opened: set[str] = set()  # inputs opened since the last event of a field
        self._pending: list[tuple[int, bytes]] = []
        self._unfollowed: deque[bytes] = deque()  # stamped, not yet looked through
        self._work: queue.SimpleQueue[list[tuple[int, bytes]] | None] = queue.SimpleQueue()
        self._lost: list[str] = []
        # Fields that lay in a folder when its watch began, and fields whose completion was seen,
        # each with the number of the watch. A later watch has a higher number.
        self._found: dict[str, int] = {}
        self._completed: dict[str, int] = {}
        self._realtime = False
        self._written = 0
        self._is_full = False
        self._all_written = False
        self._inotify = inotify.open_inotify()
        for folder in sorted({path.parent for path in spec.inputs}):
            self._add(Root.DATA, folder)
        for folder in sorted(self._field_folders):
            if (spec.output_dir / folder).is_dir():
                self._add(Root.OUTPUT, folder)

    def run(self, trace: IO[bytes], control: int, announce: IO[bytes]) -> None:
        """Watch and write ``trace`` until ``control`` reports its end; one line to ``announce``
        once every event from now on will be seen."""
        precision = become_punctual(realtime=self._spec.realtime, spare_cpu=self._spec.spare_cpu)
        header = Header(
            placement=self._spec.placement, precision=precision, t_ns=time.monotonic_ns()
        )
        trace.write(to_line(header))
        trace.flush()
        announce.write(to_line(header))
        announce.flush()
        self._realtime = precision is Precision.FIFO
        writer = threading.Thread(target=self._write, args=(trace,), name="writer", daemon=True)
        writer.start()
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(control, select.POLLIN | select.POLLHUP)
        stopping = False
        while not stopping:
            ready = dict(poll.poll(self._patience_ms()))
            if self._inotify in ready:
                self._read_all()
            if self._unfollowed:
                self._follow(self._unfollowed.popleft())
            elif not ready:
                self._hand_over()
            if self._pending_is_long():
                self._hand_over()
            stopping = control in ready and os.read(control, 1) == b""
        self._read_all()
        while self._unfollowed:
            self._follow(self._unfollowed.popleft())
        self._hand_over()
        self._work.put(None)
        writer.join()
        if not self._all_written:
            self._lose("the writer of the trace died")
        self._note_fields_completed_unseen()
        end = End(t_ns=time.monotonic_ns(), events=self._written, lost=tuple(self._lost))
        trace.write(to_line(end))
        trace.flush()

    def _patience_ms(self) -> int | None:
        if self._unfollowed:
            return 0
        return _IDLE_MS if self._pending else None

    def _pending_is_long(self) -> bool:
        if not self._pending:
            return False
        age_ns = time.monotonic_ns() - self._pending[0][0]
        return len(self._pending) > _MAX_PENDING or age_ns > _MAX_PENDING_NS

    def _read_all(self) -> None:
        """Stamp all that the kernel has. Looking through it waits: who fills the queue would have
        the events after that stamped late."""
        for _ in range(_MAX_PENDING):
            try:
                buffer = os.read(self._inotify, _READ_BYTES)
            except BlockingIOError:
                break
            self._pending.append((time.monotonic_ns(), buffer))
            self._unfollowed.append(buffer)

    def _follow(self, buffer: bytes) -> None:
        """What appeared must be watched before more happens to it."""
        for raw in inotify.decode(buffer, _APPEARED):
            if raw.name not in self._names:
                continue
            _, folder = self._folders[raw.watch]
            path = folder / raw.name
            if raw.mask & inotify.IN_ISDIR:
                if path in self._field_folders:
                    self._adopt(path)
            elif str(path) in self._expected[Root.OUTPUT]:
                self._watch_field(path)

    def _watch_field(self, path: PurePosixPath) -> None:
        """Watch the file that has a field's name now; a later one gets its own event and watch."""
        try:
            watch = inotify.add_watch(self._inotify, self._spec.output_dir / path, _FIELD_MASK)
        except FileNotFoundError:
            return  # gone again
        except OSError as error:
            self._lose(f"{path}: could not be watched ({error.strerror})")
            return
        self._files.setdefault(watch, set()).add(str(path))

    def _adopt(self, folder: PurePosixPath) -> None:
        """Watch a folder that appeared late, and note what was in it before that.

        That its name is watched already says nothing: a folder that was moved away, or removed
        while somebody has it open, keeps its watch. The kernel knows which folder it is.
        """
        try:
            watch = self._add(Root.OUTPUT, folder)
            if watch is None:
                return
            names = [path.name for path in (self._spec.output_dir / folder).iterdir()]
        except OSError as error:
            self._lose(f"{folder}: appeared and could not be watched ({error.strerror})")
            return
        for name in names:
            path = folder / name
            if path in self._field_folders:
                self._adopt(path)
            elif str(path) in self._expected[Root.OUTPUT]:
                self._found[str(path)] = watch
                self._watch_field(path)

    def _note_fields_completed_unseen(self) -> None:
        for path, watch in sorted(self._found.items()):
            if self._completed.get(path, 0) < watch:
                self._lose(f"{path}: written before its new folder could be watched")

    def _add(self, root: Root, folder: PurePosixPath) -> int | None:
        """The watch's number; None when this very folder is watched already."""
        base, mask = (
            (self._spec.data_dir, _DATA_MASK)
            if root is Root.DATA
            else (self._spec.output_dir, _OUTPUT_MASK)
        )
        watch = inotify.add_watch(self._inotify, base / folder, mask)
        is_new = watch not in self._folders
        self._folders[watch] = (root, folder)
        return watch if is_new else None

    def _lose(self, reason: str) -> None:
        """Each reason once: a submission may give us the same one a million times."""
        if reason not in self._lost:
            self._lost.append(reason)

    def _hand_over(self) -> None:
        if self._pending:
            self._work.put(self._pending)
            self._pending = []

    def _write(self, trace: IO[bytes]) -> None:
        """The writer thread: until it is handed None."""
        if self._realtime:
            follow_watcher()
        while (batch := self._work.get()) is not None:
            try:
                self._write_batch(trace, batch)
            except OSError as error:
                self._lose(f"the trace could not be written ({error.strerror})")
        self._all_written = True

    def _write_batch(self, trace: IO[bytes], batch: list[tuple[int, bytes]]) -> None:
        for t_ns, buffer in batch:
            for raw in inotify.decode(buffer):
                for event in self._interpret(t_ns, raw):
                    self._write_event(trace, event)
        trace.flush()

    def _write_event(self, trace: IO[bytes], event: FileEvent) -> None:
        """Without what cannot matter: the second opening of an input between two events of fields
        belongs to the same pair as the first."""
        if event.root is Root.OUTPUT:
            self._opened.clear()
        elif event.path in self._opened:
            return
        else:
            self._opened.add(event.path)
        if self._written < self._spec.max_events:
            trace.write(to_line(event))
            self._written += 1
        elif not self._is_full:
            self._is_full = True
            self._lose(f"more than {self._spec.max_events} events; the rest was left out")

    def _interpret(self, t_ns: int, raw: RawEvent) -> Iterator[FileEvent]:
        if raw.mask & inotify.IN_Q_OVERFLOW:
            self._lose("the kernel's queue of events overflowed")
        elif raw.watch in self._files:
            yield from self._interpret_field(t_ns, raw)
        else:
            yield from self._interpret_folder(t_ns, raw)

    def _interpret_field(self, t_ns: int, raw: RawEvent) -> Iterator[FileEvent]:
        if not raw.mask & inotify.IN_CLOSE_WRITE:
            return
        for path in sorted(self._files[raw.watch]):
            if t_ns - self._closed_ns.get(path, 0) > _SAME_CLOSE_NS:
                self._completed[path] = raw.watch
                yield FileEvent(t_ns=t_ns, event=Event.WRITTEN, root=Root.OUTPUT, path=path)

    def _interpret_folder(self, t_ns: int, raw: RawEvent) -> Iterator[FileEvent]:
        root, folder = self._folders[raw.watch]
        if raw.mask & inotify.IN_UNMOUNT or (raw.mask & inotify.IN_IGNORED and root is Root.DATA):
            self._lose(f"{root} {folder}: removed or unmounted during the run")
        if raw.mask & inotify.IN_MOVE_SELF:
            # Its watch goes with it, and would go on to report what is written under its old name.
            self._lose(f"{folder}: moved by the submission during the run")
        if raw.mask & (inotify.IN_UNMOUNT | inotify.IN_IGNORED | inotify.IN_MOVE_SELF):
            return
        path = str(folder / raw.name)
        if raw.mask & inotify.IN_ISDIR or path not in self._expected[root]:
            return
        kind = next(event for bit, event in _EVENTS.items() if raw.mask & bit)
        if kind is Event.CLOSED:
            self._closed_ns[path] = t_ns
        if kind in _COMPLETIONS:
            self._completed[path] = raw.watch
        yield FileEvent(t_ns=t_ns, event=kind, root=root, path=path)

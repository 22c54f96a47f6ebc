#!/usr/bin/env python3
"""Draws docs/timing.svg: what four ways to walk three pairs become. Prints it.

Bars, numbers and flags come from the harness's own rule, so the picture cannot say otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.challenge.pairs import Pair
from harness.probe.realtime import Precision
from harness.probe.trace import Event, FileEvent, Placement, Root, Trace
from harness.timing import PairTiming, time_pairs

READ_S, COMPUTE_S, WRITE_S = 1, 8, 1
LEFT, TOP, WIDTH = 62, 44, 760  # px
PX_PER_S = 11
ROW, PANEL_HEAD, PANEL_GAP = 29, 31, 14  # px
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; } .quiet, .number { fill: #59636e; } .number { font-size: 11px; }
.flag { fill: #9a6700; font-size: 11px; } .image { font-size: 10px; text-anchor: middle; }
.other { fill: #59636e; opacity: .75; }
.runtime { fill: #b6d4fb; } .exclusive { fill: #4c8fe0; }
.work { stroke: #1a7f37; stroke-width: 3; } .open { stroke: #1f2328; stroke-width: 1.5; }
.open.other { stroke: #59636e; stroke-dasharray: 2 2; } .done { fill: #1f2328; }
.axis { stroke: #59636e; opacity: .4; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .quiet, .number { fill: #9198a1; } .flag { fill: #d29922; }
.other { fill: #9198a1; } .runtime { fill: #1f3f68; } .exclusive { fill: #3f7fcf; }
.work { stroke: #3fb950; } .open { stroke: #e6edf3; } .open.other { stroke: #9198a1; }
.done { fill: #e6edf3; } .axis { stroke: #9198a1; }
}
"""


def make_pair(images: str) -> Pair:
    fixed, moving = images[0], images[1]
    return Pair(
        task="task_01",
        fixed_id=ord(fixed),
        moving_id=ord(moving),
        fixed=PurePosixPath(fixed),
        moving=PurePosixPath(moving),
        auxiliary=(),
        field=PurePosixPath(f"{images}.npz"),
    )


@dataclass
class Walk:
    """A method's way through three pairs, step by step, in seconds."""

    title: str
    pairs: tuple[str, str, str]
    now_s: int = 0
    openings: list[tuple[str, int, str]] = field(default_factory=list)  # for pair, when, image
    work: list[tuple[str, int]] = field(default_factory=list)
    done: list[tuple[str, int]] = field(default_factory=list)
    events: list[FileEvent] = field(default_factory=list)

    def read(self, pair: str, images: str | None = None) -> None:
        for image in pair if images is None else images:
            self.openings.append((pair, self.now_s, image))
            self.events.append(event(self.now_s, Event.OPEN, Root.DATA, image))
            self.now_s += READ_S

    def compute(self, pair: str) -> None:
        self.work.append((pair, self.now_s))
        self.now_s += COMPUTE_S

    def write(self, pair: str) -> None:
        self.now_s += WRITE_S
        self.done.append((pair, self.now_s))
        self.events.append(event(self.now_s, Event.CLOSED, Root.OUTPUT, f"{pair}.npz"))

    def timings(self) -> tuple[PairTiming, ...]:
        trace = Trace(placement=Placement.HOST, precision=Precision.FIFO, events=tuple(self.events))
        return time_pairs([make_pair(pair) for pair in self.pairs], trace)


def event(t_s: int, kind: Event, root: Root, path: str) -> FileEvent:
    return FileEvent(t_ns=t_s * 10**9, event=kind, root=root, path=path)


def in_turn() -> Walk:
    walk = Walk("One pair after the other", ("AB", "CD", "EF"))
    for pair in walk.pairs:
        walk.read(pair)
        walk.compute(pair)
        walk.write(pair)
    return walk


def kept() -> Walk:
    walk = Walk("A chain, the shared image kept in memory", ("AB", "BC", "CD"))
    for index, pair in enumerate(walk.pairs):
        walk.read(pair, pair if index == 0 else pair[1])
        walk.compute(pair)
        walk.write(pair)
    return walk


def ahead() -> Walk:
    walk = Walk("A loader that reads ahead", ("AB", "CD", "EF"))
    for pair in walk.pairs:
        walk.read(pair)
    for pair in walk.pairs:
        walk.compute(pair)
        walk.write(pair)
    return walk


def replay() -> Walk:
    walk = Walk("Everything computed first, then the reads replayed", ("AB", "BC", "AC"))
    for pair in walk.pairs:
        walk.read(pair)
        walk.compute(pair)
    for pair in walk.pairs:
        walk.read(pair)
        walk.write(pair)
    return walk


def x(t_s: float) -> str:
    return f"{LEFT + t_s * PX_PER_S:.1f}".removesuffix(".0")


def draw_panel(walk: Walk, top: int) -> list[str]:
    lines = [f'<text class="head" x="0" y="{top + 14}">{walk.title}</text>']
    for index, (pair, timing) in enumerate(zip(walk.pairs, walk.timings(), strict=True)):
        lines += draw_row(walk, pair, timing, top + PANEL_HEAD + index * ROW)
    return lines


def draw_row(walk: Walk, pair: str, timing: PairTiming, y: int) -> list[str]:
    if timing.started_ns is None or timing.finished_ns is None or timing.exclusive_s is None:
        raise ValueError(f"{walk.title}: {pair} has no runtime")
    start, finish = timing.started_ns * 1e-9, timing.finished_ns * 1e-9
    lines = [f'<text class="quiet" x="12" y="{y + 13}">{pair[0]} - {pair[1]}</text>']
    for css, begin in (("runtime", start), ("exclusive", finish - timing.exclusive_s)):
        width = (finish - begin) * PX_PER_S
        lines.append(
            f'<rect class="{css}" x="{x(begin)}" y="{y + 4}" width="{width:.1f}" height="10"/>'
        )
    for who, t_s in walk.work:
        if who == pair:
            lines.append(f'<path class="work" d="M{x(t_s)} {y + 17.5}H{x(t_s + COMPUTE_S)}"/>')
    for who, t_s, image in walk.openings:
        if who == pair:
            other = "" if start <= t_s else " other"
            lines.append(f'<path class="open{other}" d="M{x(t_s)} {y + 1}v16"/>')
            lines.append(f'<text class="image{other}" x="{x(t_s)}" y="{y - 1}">{image}</text>')
    for who, t_s in walk.done:
        if who == pair:
            lines.append(f'<circle class="done" cx="{x(t_s)}" cy="{y + 9}" r="3.5"/>')
    label = f"{finish - start:.0f} s"
    if timing.exclusive_s != timing.runtime_s:
        label += f", exclusive {timing.exclusive_s:.0f} s"
    flags = ", ".join(sorted(timing.flags))
    lines.append(f'<text class="number" x="{x(40.5)}" y="{y + 9}">{label}</text>')
    lines.append(f'<text class="flag" x="{x(40.5)}" y="{y + 21}">{flags}</text>')
    return lines


LEGEND = """
<g transform="translate(0 14)">
<path class="open" d="M6 -9v16"/><text x="14" y="4">opens an image</text>
<path class="open other" d="M122 -9v16"/><text x="130" y="4">counts for another pair</text>
<circle class="done" cx="282" cy="0" r="3.5"/><text x="291" y="4">field written</text>
<path class="work" d="M383 0h24"/><text x="413" y="4">computes</text>
<rect class="runtime" x="486" y="-5" width="24" height="10"/><text x="516" y="4">runtime,</text>
<rect class="exclusive" x="572" y="-5" width="24" height="10"/>
<text x="602" y="4">its exclusive part</text>
</g>"""


def draw() -> str:
    walks = (in_turn(), kept(), ahead(), replay())
    panel = PANEL_HEAD + 3 * ROW + PANEL_GAP
    height = TOP + len(walks) * panel + 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Four ways to walk three pairs, and their runtimes</title>",
        f"<style>{STYLE}</style>",
        LEGEND.strip(),
    ]
    for index, walk in enumerate(walks):
        lines += draw_panel(walk, TOP + index * panel)
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    sys.stdout.write(draw())

"""The picture of a run, as SVG or PNG, by matplotlib (extra ``report``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.errors import OutputError
from harness.timeline.layout import slowest, thinned, ticks_apart

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from harness.timeline.layout import Bar, Panel, Row, Timeline

# Okabe and Ito's colours, which colour-blind people tell apart.
_PAIR, _OTHER, _FLAGGED, _INVALID = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
_GPUS = ("#009E73", "#CC79A7", "#0072B2", "#E69F00")
_TICK, _SHADE = "#333333", "#E8E8E8"
_WIDTH_IN, _WIDEST_IN, _PAIRS_AN_IN = 11.0, 22.0, 30
_LANE_IN, _PANEL_IN, _RUNTIMES_IN, _FRAME_IN = 0.55, 1.1, 1.6, 1.3
_MARGIN_IN = 1.2  # left and right of the time axis, for labels
_CHARACTER_IN = 0.068
_MANY = 24  # pairs: above, not every bar can have its name, and runtimes get a panel of their own
_NAMED = 3  # of the slowest, there
_NAME_SHARE = 0.15  # of the time axis, for a name
_GAP_SHARE = 0.003  # of it: shorter ones are not shaded, a grey mist where there are many pairs
_POINTS = 1500  # of a curve: beyond, each is the mean of several, in a band from low to high
_TICK_IN = 1 / 144  # apart, or they are one
_STYLE: dict[Any, Any] = {  # matplotlib's own names
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "harness",  # the same run gives the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(timeline: Timeline, path: Path) -> None:
    """``path`` ends in .svg or .png. Raises OutputError where it cannot be written."""
    with rc_context(_STYLE):
        figure = _figure(timeline)
        kind = path.suffix.removeprefix(".").lower()
        part = path.with_name(f".{path.name}.part")
        try:
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(part, format=kind, dpi=144, metadata=metadata)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def _figure(timeline: Timeline) -> Figure:
    bars = timeline.bars
    is_many = len(bars) > _MANY
    width = min(max(_WIDTH_IN, len(bars) / _PAIRS_AN_IN), _WIDEST_IN)
    lanes = max(1, sum(row.lanes for row in timeline.rows))
    heights = [max(lanes * _LANE_IN, 0.8)]
    heights += [_RUNTIMES_IN] * is_many + [_PANEL_IN] * len(timeline.panels)
    figure = Figure(figsize=(width, sum(heights) + _FRAME_IN), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    axes: list[Axes] = list(grid[:, 0])
    per_in_s = timeline.duration_s / (width - _MARGIN_IN) or 1.0
    _draw_rows(axes[0], timeline, per_in_s)
    rest = axes[1:]
    if is_many:
        _draw_runtimes(rest.pop(0), bars)
    for panel, ax in zip(timeline.panels, rest, strict=True):
        _draw_panel(ax, panel)
    for ax in axes:
        for start_s, end_s in timeline.idle:
            if end_s - start_s < _GAP_SHARE * timeline.duration_s:
                continue
            ax.axvspan(start_s, end_s, color=_SHADE, linewidth=0, zorder=0)
        ax.set_xlim(0, timeline.duration_s or 1.0)
    axes[-1].set_xlabel("\n".join(("seconds since the start", *timeline.notes)), parse_math=False)
    figure.suptitle(timeline.title, x=0.01, ha="left", fontweight="bold", parse_math=False)
    axes[0].set_title(timeline.subtitle, loc="left", fontsize=9, parse_math=False)
    _draw_legend(figure, timeline)
    return figure


def _draw_rows(ax: Axes, timeline: Timeline, per_in_s: float) -> None:
    top = 0.0
    places, names = [], []
    for row in timeline.rows:
        _draw_row(ax, row, top, per_in_s)
        places.append(top + row.lanes / 2)
        names.append(row.task)
        top += row.lanes
    ax.set_ylim(max(top, 1.0), 0)  # the first task on top
    ax.set_yticks(places, names)
    ax.tick_params(axis="y", length=0)
    if not timeline.rows:
        ax.text(0.5, 0.5, "no pair was timed", transform=ax.transAxes, ha="center", va="center")


def _draw_row(ax: Axes, row: Row, top: float, per_in_s: float) -> None:
    for place, bar in enumerate(row.bars):
        middle = top + bar.lane + 0.5
        ax.barh(
            middle,
            bar.runtime_s,
            left=bar.start_s,
            height=0.5,
            color=_colour(bar, place),
            edgecolor="white",
            linewidth=0.4,
        )
        if text := _name(bar, per_in_s):
            ax.text(
                bar.start_s + bar.runtime_s / 2,
                middle,
                text,
                ha="center",
                va="center",
                color="black" if _colour(bar, place) in {_OTHER, _FLAGGED} else "white",
                fontsize=7,
                linespacing=1.0,
                parse_math=False,
            )
    least_s = per_in_s * _TICK_IN
    bottom = top + row.lanes
    ax.vlines(ticks_apart(row.reads_s, least_s), top + 0.04, top + 0.2, _TICK, linewidth=0.7)
    ax.vlines(ticks_apart(row.writes_s, least_s), bottom - 0.2, bottom - 0.04, _TICK, linewidth=0.7)
    ax.axhline(bottom, color=_SHADE, linewidth=0.8, zorder=0)


def _colour(bar: Bar, place: int) -> str:
    if not bar.is_valid:
        return _INVALID
    if bar.flags:
        return _FLAGGED
    return _PAIR if place % 2 == 0 else _OTHER


def _name(bar: Bar, per_in_s: float) -> str:
    """Pair and runtime, as much as has room in the bar; nothing when nothing has."""
    room = bar.runtime_s / per_in_s / _CHARACTER_IN
    name = bar.key.rpartition("/")[2]
    runtime = f"{bar.runtime_s:.3g} s"
    return next((text for text in (f"{name}\n{runtime}", runtime) if _width(text) <= room), "")


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _draw_runtimes(ax: Axes, bars: tuple[Bar, ...]) -> None:
    ax.scatter(
        [bar.start_s for bar in bars],
        [bar.runtime_s for bar in bars],
        s=9,
        c=[_colour(bar, 0) for bar in bars],
        linewidths=0,
    )
    for bar in _named(bars):
        ax.annotate(
            f"{bar.key}  {bar.runtime_s:.3g} s",
            (bar.start_s, bar.runtime_s),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            parse_math=False,
        )
    ax.set_ylim(0, 1.2 * max(bar.runtime_s for bar in bars))
    ax.set_ylabel("runtime (s)")


def _named(bars: tuple[Bar, ...]) -> list[Bar]:
    """The slowest, but of those whose names would lie on each other the slowest alone."""
    duration_s = max(bar.end_s for bar in bars)
    named: list[Bar] = []
    for bar in slowest(bars, len(bars)):
        if all(abs(bar.start_s - one.start_s) > _NAME_SHARE * duration_s for one in named):
            named.append(bar)
        if len(named) == _NAMED:
            break
    return named


def _draw_panel(ax: Axes, panel: Panel) -> None:
    for place, curve in enumerate(panel.curves):
        drawn = thinned(curve, _POINTS)
        colour = _GPUS[place % len(_GPUS)]
        if drawn.band is not None:
            ax.fill_between(drawn.t_s, *drawn.band, color=colour, alpha=0.25, linewidth=0)
        ax.plot(
            drawn.t_s,
            drawn.values,
            color=colour,
            linewidth=0.9,
            linestyle="-" if place < len(_GPUS) else "--",
            drawstyle="steps-pre" if curve.is_step and drawn.band is None else "default",
            label=curve.gpu,
        )
    ax.set_ylabel(panel.title)
    ax.set_ylim(0, panel.highest)
    if len(panel.curves) > 1:
        ax.legend(loc="upper right", fontsize=7, framealpha=0.8, ncols=len(panel.curves))


def _draw_legend(figure: Figure, timeline: Timeline) -> None:
    bars = timeline.bars
    handles: list[Patch | Line2D] = [
        Patch(color=_PAIR, label="a pair, from its first read to its field"),
        Patch(color=_SHADE, label="no pair's time"),
        Line2D([], [], color=_TICK, marker="|", linestyle="", label="reads above, fields below"),
    ]
    if any(bar.is_valid and bar.flags for bar in bars):
        handles.insert(1, Patch(color=_FLAGGED, label="flagged"))
    if any(not bar.is_valid for bar in bars):
        handles.insert(1, Patch(color=_INVALID, label="its field is not valid"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=7,
                  frameon=False)  # fmt: skip

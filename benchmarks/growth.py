"""How cost grows: connections a process, readers a channel, subscribers a track, members a room.

The local cloud runs in a process of its own, and its side is shown apart. Each figure is the median
of some runs, in processes that are made for it (Linux). Where pictures flow, the counts end sooner:
a thousand sessions take more than two cores have. ``growth.json`` keeps the figures, and
``growth.png`` draws them; what is not measured this time stays as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _growth_media
import _growth_messages

HERE = Path(__file__).parent
COUNTS = (1, 10, 100, 1000)
MEDIA_COUNTS = (1, 10, 30, 100)


@dataclass(frozen=True)
class Plot:
    """One drawing of a part: a figure for each side, over the count."""

    title: str
    key: str
    """The figure's name; the local cloud's has ``cloud`` before it."""


@dataclass(frozen=True)
class Part:
    """What is counted, how it is measured, and what is drawn of it."""

    what: str
    measure: Callable[[int], dict[str, float]]
    """Returns the figures for a count."""
    plots: Sequence[Plot]
    counts: Sequence[int] = COUNTS


PARTS = {
    "connections": Part(
        "connections a process",
        _growth_messages.connections,
        (
            Plot("memory of a connection (KB)", "memory"),
            Plot("CPU of connecting (µs)", "connect"),
            Plot("CPU of publish to acknowledgement (µs)", "message"),
        ),
    ),
    "readers": Part(
        "readers a channel, each on a connection of its own",
        _growth_messages.readers,
        (
            Plot("memory of a reader, with the list of members (KB)", "memory"),
            Plot("CPU of a message for one reader (µs)", "delivery"),
        ),
    ),
    "subscribers": Part(
        "subscribers of a track",
        _growth_media.subscribers,
        (
            Plot("memory of a subscriber (KB)", "memory"),
            Plot("CPU of subscribing, with its session (ms)", "subscribe"),
            Plot("CPU of a picture for one subscriber (µs)", "picture"),
        ),
        MEDIA_COUNTS,
    ),
    "members": Part(
        "members of a room, beside two that send",
        _growth_media.members,
        (
            Plot("memory of a member (KB)", "memory"),
            Plot("CPU of joining (ms)", "join"),
            Plot("CPU of a picture for one member (µs)", "picture"),
        ),
        MEDIA_COUNTS,
    ),
}


def measure(part: Part, count: int, rounds: int) -> dict[str, float]:
    """Return a part's figures for a count; print them."""
    runs = [part.measure(count) for _ in range(rounds)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    shown = "  ".join(f"{key}: {value:.1f}" for key, value in median.items())
    print(f"{part.what}: {count:>5}   {shown}", flush=True)
    return {"count": count, **median}


def draw(figures: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw all parts that have figures, a row each."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    parts = [(part, figures[name]) for name, part in PARTS.items() if name in figures]
    columns = max(len(part.plots) for part, _ in parts)
    size = (4 * columns, 3.2 * len(parts))
    figure, axes = pyplot.subplots(
        len(parts), columns, figsize=size, layout="constrained", squeeze=False
    )
    for row, (part, found) in zip(axes, parts, strict=True):
        for axis in row[len(part.plots) :]:
            axis.set_axis_off()
        for axis, plot in zip(row, part.plots, strict=False):
            counts = [one["count"] for one in found]
            for side, label, style in (("", "client", "o-"), ("cloud ", "local cloud", "s--")):
                axis.plot(counts, [one[side + plot.key] for one in found], style, label=label)
            axis.set_title(plot.title, fontsize=9)
            axis.set(xscale="log", ylim=(0, None), xlabel=part.what)
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Measure, keep the figures, draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="one part; all by default")
    parser.add_argument("--least", type=int, default=1, help="the smallest count (1)")
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="the largest count (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs for each figure (3)")
    parser.add_argument(
        "--to", type=Path, default=HERE / "growth", help="the files, without ending"
    )
    options = parser.parse_args()
    kept = options.to.with_suffix(".json")
    figures = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.part or PARTS:
        for count in PARTS[name].counts:
            if options.least <= count <= options.most:
                others = [one for one in figures.get(name, ()) if one["count"] != count]
                found = measure(PARTS[name], count, options.rounds)
                figures[name] = sorted([*others, found], key=lambda one: one["count"])
                kept.write_text(json.dumps(figures, indent=1) + "\n")
    draw(figures, options.to.with_suffix(".png"))


if __name__ == "__main__":
    main()

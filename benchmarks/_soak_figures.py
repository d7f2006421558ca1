"""Keep what the soak measures over the time; say it in words, and draw it."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass, field

__all__ = ["Series", "draw", "summary"]


@dataclass
class Series:
    """What was measured, over the time."""

    started: float = field(default_factory=time.monotonic)
    times: list[float] = field(default_factory=list)
    counts: dict[str, list[float]] = field(default_factory=dict)
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When each outage of a messaging connection or an SFU session ended, and its seconds."""
    lost: int = 0
    """Messages that readers have missed."""

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.started

    def add(self, counts: dict[str, float]) -> None:
        """Add a sample of what is held."""
        self.times.append(self.now())
        down = sum(duration for _, duration in self.outages)
        for name, count in {**counts, "lost": self.lost, "down": down}.items():
            self.counts.setdefault(name, []).append(count)

    def changes(self, name: str) -> list[float]:
        """Return by how much a count has risen from each sample to the next."""
        values = [0.0, *self.counts[name]]
        return [after - before for before, after in itertools.pairwise(values)]


def summary(series: Series) -> str:
    """Return in words what outages took and cost."""
    durations = sorted(duration for _, duration in series.outages) or [0.0]
    total = sum(durations)
    return (
        f"{len(series.outages)} outages, {statistics.median(durations):.2f} s in the median and "
        f"{durations[-1]:.2f} s at most; {series.lost} messages lost in them, "
        f"{series.lost / total if total else 0:.1f} for each second of an outage"
    )


def draw(series: Series, path: str) -> None:
    """Draw what was measured."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(3, 2, figsize=(11, 9))
    minutes = [seconds / 60 for seconds in series.times]
    titles = ("memory (MiB)", "threads", "files: descriptors", "tasks of the loop")
    for plot, title in zip(plots.flat, titles, strict=False):
        counts = series.counts[title.split(" ")[0].rstrip(":")]
        plot.plot(minutes, counts, linewidth=1)
        plot.set(title=title, ylim=(0, 1.1 * max(counts)))
    plot = plots[2, 0]
    plot.plot([at / 60 for at, _ in series.outages], [s for _, s in series.outages], ".", ms=2)
    plot.set(title="each outage (s)", xlabel="minutes", ylim=(0, None))
    plot = plots[2, 1]
    plot.plot(series.changes("down"), series.changes("lost"), ".", ms=3)
    plot.set(
        title="messages lost from sample to sample", xlabel="seconds of outage, of all clients"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=90)

"""Set the stage for the demo: a local cloud, the publisher, and then the viewer."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from metered_sync.errors import MeteredError

try:
    from PIL import Image, ImageDraw
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Table
except ImportError as error:
    raise ImportError(
        f"the demo needs more packages ({error.name} is missing): "
        "run  pip install 'metered_sync[webrtc,local,cli]'"
    ) from error

from metered_sync.demo.viewer import Seen, watch

__all__ = ["contact_sheet", "run"]


def run(output: Path, *, seconds: float) -> None:
    """Run the demo and show what arrived.

    Args:
        output: Where the contact sheet goes, a PNG.
        seconds: How long to watch.
    """
    if not seconds > 0:
        raise ValueError("seconds must be a positive number")
    if not output.resolve().parent.is_dir():
        raise ValueError(f"there is no directory {output.resolve().parent} to put the picture in")
    console = Console()
    with ExitStack() as stack:
        cloud = stack.enter_context(_Child("metered_sync.cli", "serve", "--exit-with-stdin"))
        os.environ.update(cloud.exports())
        console.print("local cloud: serving")
        publisher = stack.enter_context(_Child("metered_sync.demo.publisher"))
        console.print(f"publisher:   bunny.mp4, picture and sound (process {publisher.pid})")
        bar = Progress(
            TextColumn(f"viewer:      reading in process {os.getpid()}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[pictures]} pictures"),
            console=console,
        )
        with bar:
            task = bar.add_task("watch", total=1.0, pictures=0)
            seen = watch(
                seconds,
                lambda share, count: bar.update(task, completed=share, pictures=count),
            )
        publisher.finish()
    contact_sheet(seen).save(output)
    console.print(_report(seen))
    console.print(f"contact sheet: {output.resolve()}", soft_wrap=True)


class _Child:
    """Run a Python process that ends when the block does, come what may."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._name = module

    def __enter__(self) -> _Child:
        # Ctrl-C is for this process, which ends the others. They inherit that it is ignored.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        finally:
            signal.signal(signal.SIGINT, handler)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def exports(self) -> dict[str, str]:
        """Return the variables that the process prints for a shell, up to its first comment."""
        assert self._process.stdout is not None
        variables: dict[str, str] = {}
        for line in self._process.stdout:
            if line.startswith("#"):
                return variables
            name, _, value = line.removeprefix("export ").strip().partition("=")
            variables[name] = value
        raise MeteredError(f"{self._name} ended with status {self._process.wait(10)}")

    def finish(self) -> None:
        """Wait for the process to end by itself."""
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            pass

    def __exit__(self, *exc: object) -> None:
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(0 if process.poll() is not None else 1)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _report(seen: Seen) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for kind, unit in (("video", "pictures"), ("audio", "pieces of sound")):
        sent, received = seen.sent[kind], seen.received[kind]
        early = " (with what was under way when counting began)" if received > sent else ""
        table.add_row(unit, f"{sent} sent, {received} received{early}")
    table.add_row("pictures per second", f"{len(seen.ages) / seen.seconds:.1f} read")
    table.add_row(
        "age of the newest picture",
        f"{statistics.median(seen.ages) * 1000:.1f} ms median, "
        f"{max(seen.ages) * 1000:.1f} ms at most, since it arrived",
    )
    table.add_row(
        "audio level",
        f"{_dbfs(statistics.fmean(seen.energies)):.1f} dBFS mean, "
        f"{_dbfs(max(seen.energies)):.1f} dBFS in the loudest 20 ms"
        if seen.energies
        else "nothing was heard",
    )
    return table


def _dbfs(energy: float) -> float:
    return 10 * math.log10(max(energy, 1e-10))


def contact_sheet(seen: Seen, *, columns: int = 4, width: int = 320) -> Image.Image:
    """Return the pictures that were kept, side by side, each with its moment."""
    gap, caption = 8, 20
    first = seen.pictures[0][1]
    height = round(first.shape[0] * width / first.shape[1])
    rows = -(-len(seen.pictures) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) + gap, rows * (height + caption + gap) + gap + caption),
        (24, 24, 27),
    )
    draw = ImageDraw.Draw(sheet)
    for index, (moment, picture) in enumerate(seen.pictures):
        left = gap + index % columns * (width + gap)
        top = gap + index // columns * (height + caption + gap)
        sheet.paste(Image.fromarray(picture).resize((width, height)), (left, top))
        draw.text((left + 2, top + height + 4), f"{moment:.2f} s", fill=(212, 212, 216))
    credit = "Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"
    draw.text((gap + 2, sheet.height - caption), credit, fill=(161, 161, 170))
    return sheet

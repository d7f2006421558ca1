"""Rooms: from joining to the first picture, CPU of a received stream, and what a loss costs.

And rooms of many, in a mesh and through the SFU (``--part many``): what a member sends and takes,
by the number of members; ``_rooms_scale.py`` says how. That part writes ``rooms.json`` and draws
``rooms.png`` from it.

One member of this library sends 640x480 pictures, 30 a second; the other member, in a process of
its own, receives them: with this library, then with the published async client
(``metered-realtime``), in turns, so that what else the machine does hits both. Then the
receiver's connection to the service is cut; the longest pause between two pictures after that is
what the recovery took.

Last, once each, the path that the media take dies while signalling lives: through a TURN server
(coturn) and a relay before it, which from some moment on loses what belongs to that path. Nearly
all of that pause is the sender finding out, the same in both: nothing comes, and a probe is not
answered (``Timings.path_silence`` and ``path_probe``). Bare aiortc does not come back at all.

Ratios above 1 mean that we are faster, or take less.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _rooms_scale
import aioice.ice

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


from metered_sync import MeteredPeer, mint_token  # noqa: E402
from metered_sync.local import LocalCloud  # noqa: E402
from metered_sync.testing import PatternSource  # noqa: E402
from tests.scenarios.interop.conftest import python_command  # noqa: E402
from tests.support.coturn import SECRET, bad_path, coturn  # noqa: E402


def receive(
    cloud: LocalCloud,
    command: tuple[str, str],
    options: argparse.Namespace,
    cut: Callable[[], object],
    *,
    within: float,
    pause: float,
) -> dict[str, float]:
    """Have a receiver join; cut something; return what it measured.

    It goes on for ``within`` seconds, or until a second after a pause longer than ``pause``.
    """
    python, script = command
    given = [str(options.seconds), str(options.consent)]
    token = mint_token(cloud.key_id, cloud.key_secret, peer_id="receiver")
    with subprocess.Popen(
        [python, str(HERE / script), cloud.url, token, *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{script} failed")
        dropped = time.monotonic()
        process.stdin.write(f"{within} {pause}\n")
        process.stdin.flush()
        cut()
        figures: dict[str, Any] = json.loads(process.stdout.readline())
    times = [t for t in figures.pop("times") if t > dropped - 0.5]
    back = figures.pop("ended") - times[-1] < min(1, pause)
    figures["recovery"] = max(b - a for a, b in itertools.pairwise(times)) if back else math.inf
    return figures


def dead_path(command: tuple[str, str], options: argparse.Namespace) -> float:
    """Return for how long there are no pictures after a path has died."""
    with (
        tempfile.TemporaryDirectory() as folder,
        coturn(Path(folder)) as port,
        bad_path(port, loss=0, delay=0) as path,
        LocalCloud(
            limits=False,
            ice_servers=[f"turn:127.0.0.1:{path.port}?transport=udp"],
            turn_secret=SECRET,
        ) as cloud,
        PatternSource(640, 480, fps=30) as pattern,
        MeteredPeer(**cloud.token_options("sender"), relay_only=True) as sender,
    ):
        sender.add_track(pattern.video)
        sender.join("bench")
        return receive(cloud, command, options, path.cut, within=120, pause=1.5)["recovery"]


def many(options: argparse.Namespace) -> None:
    """Measure rooms of many in turns; keep and draw the figures."""
    sizes, meshes = ((2, 3), (2, 3)) if options.quick else ((2, 4, 8, 16, 24), (2, 4, 8))
    figures: dict[str, Any] = {"load": os.getloadavg()[0], "mesh": [], "sfu": []}
    for size in sizes:
        for medium in ("mesh", "sfu") if size in meshes else ("sfu",):
            figures[medium].append(_rooms_scale.measure(medium, size, options.seconds))
    figures["forming members"] = 48 if options.quick else 256
    figures["forming"] = _rooms_scale.forming(figures["forming members"])
    if not options.quick:
        (HERE / "rooms.json").write_text(json.dumps(figures, indent=1) + "\n")
        _rooms_scale.draw(figures, HERE / "rooms.png")
    _rooms_scale.show(figures)


def main() -> None:
    """Measure both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--consent", type=float, default=5.0, help="seconds between ICE's checks")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--part", choices=("two", "many"), help="only this one")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.consent = 1, 1.0, 0.5
    if options.part != "many":
        two(options)
    if options.part != "two":
        many(options)


def two(options: argparse.Namespace) -> None:
    """Measure rooms of two, and print medians."""
    aioice.ice.CONSENT_INTERVAL = options.consent
    peers = {
        "ours": (sys.executable, "_rooms_ours.py"),
        "async client": (python_command()[0], "_rooms_async.py"),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    with LocalCloud(limits=False) as cloud, PatternSource(640, 480, fps=30) as pattern:
        for _ in range(options.rounds):
            for name, command in peers.items():
                with MeteredPeer(**cloud.token_options("sender"), ice_servers=[]) as sender:
                    sender.add_track(pattern.video)
                    sender.join("bench")
                    cut = functools.partial(cloud.faults.drop_connections, "receiver")
                    figures = receive(cloud, command, options, cut, within=8, pause=math.inf)
                    found[name].append(figures)
    for figure, unit in (
        ("first", "s from join() to the first picture"),
        ("cpu", "ms of CPU for each picture of one stream"),
        ("rate", "pictures a second"),
        ("recovery", "s without a picture after a drop of signalling"),
    ):
        ours, theirs = (statistics.median(one[figure] for one in found[name]) for name in peers)
        ratio = ours / theirs if figure == "rate" else theirs / ours
        print(f"{unit}: ours {ours:.3f}, async client {theirs:.3f}, ratio {ratio:.1f}")
    if shutil.which("turnserver") is None:
        print("no figure for a path that dies: needs the program turnserver (Debian: coturn)")
        return
    ours, theirs = (dead_path(command, options) for command in peers.values())
    print(
        f"s without a picture after the path has died: ours {ours:.1f}, async client {theirs:.1f}, "
        f"ratio {theirs / ours:.1f}"
    )


if __name__ == "__main__":
    main()

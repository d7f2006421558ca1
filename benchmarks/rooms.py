"""Rooms: from joining to the first picture, CPU of a received stream, and what a loss costs.

One member of this library sends 640x480 pictures, 30 a second; the other member, in a process of
its own, receives them: with this library, then with the published async client
(``metered-realtime``), in turns, so that what else the machine does hits both. Then the
receiver's connection to the service is cut; the longest pause between two pictures after that is
what the recovery took. Ratios above 1 mean that we are faster, or take less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from metered_sync import MeteredPeer, mint_token  # noqa: E402
from metered_sync.local import LocalCloud  # noqa: E402
from metered_sync.testing import PatternSource  # noqa: E402
from tests.interop.conftest import python_command  # noqa: E402


def receive(cloud: LocalCloud, python: str, script: str, seconds: float) -> dict[str, float]:
    """Have a receiver join; cut its connection; return what it measured."""
    token = mint_token(cloud.key_id, cloud.key_secret, peer_id="receiver")
    with subprocess.Popen(
        [python, str(HERE / script), cloud.url, token, str(seconds)],
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
        cloud.faults.drop_connections("receiver")
        process.stdin.write("dropped\n")
        process.stdin.flush()
        figures: dict[str, Any] = json.loads(process.stdout.readline())
    times = [t for t in figures.pop("times") if t > dropped - 0.5]
    figures["recovery"] = max(b - a for a, b in itertools.pairwise(times))
    return figures


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    peers = {
        "ours": (sys.executable, "_rooms_ours.py"),
        "async client": (python_command()[0], "_rooms_async.py"),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    with LocalCloud(limits=False) as cloud, PatternSource(640, 480, fps=30) as pattern:
        for _ in range(options.rounds):
            for name, (python, script) in peers.items():
                with MeteredPeer(**cloud.token_options("sender"), ice_servers=[]) as sender:
                    sender.add_track(pattern.video)
                    sender.join("bench")
                    found[name].append(receive(cloud, python, script, options.seconds))
    for figure, unit in (
        ("first", "s from join() to the first picture"),
        ("cpu", "of a core for one stream"),
        ("rate", "pictures a second"),
        ("recovery", "s without a picture after a drop of signalling"),
    ):
        ours, theirs = (statistics.median(one[figure] for one in found[name]) for name in peers)
        ratio = ours / theirs if figure == "rate" else theirs / ours
        print(f"{unit}: ours {ours:.3f}, async client {theirs:.3f}, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()

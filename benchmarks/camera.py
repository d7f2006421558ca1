"""A camera's pictures in a room: what it costs the process that sends them.

A film of 1280x720 in H.264 (the demonstration's) is sent in real time into a room, where one member
of this library receives it: as it is encoded, with this library; decoded and encoded again, with
this library; and so with the published async client (``metered-realtime``, aiortc's
``MediaPlayer``). They take turns, so that what else the machine does hits all. CPU is that of the
sending process for each picture that arrives: where pictures are encoded, a busy machine leaves
some out. Ratios are to the async client: below 1 we take less.

    python benchmarks/camera.py            # two minutes
    python benchmarks/camera.py --quick    # to see that it runs
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from metered_sync import MeteredPeer, mint_token  # noqa: E402
from metered_sync.local import LocalCloud  # noqa: E402
from tests.scenarios.interop.conftest import python_command  # noqa: E402

FILM = HERE.parent / "metered_sync" / "demo" / "bunny.mp4"
WAYS = ("encoded", "decoded", "async client")
SETTLE = 20
"""Pictures that are received before anything is measured."""


def measure(cloud: LocalCloud, way: str, seconds: float) -> tuple[float, float]:
    """Return the CPU of a sender, of a core, and the pictures a second that arrived."""
    ours = way != "async client"
    python = sys.executable if ours else python_command()[0]
    token = mint_token(cloud.key_id, cloud.key_secret, peer_id="camera")
    script = HERE / ("_camera_ours.py" if ours else "_camera_async.py")
    command = [python, str(script), cloud.url, token, str(FILM), str(seconds)]
    with (
        MeteredPeer(**cloud.token_options("viewer"), ice_servers=[]) as viewer,
        subprocess.Popen(
            [*command, way] if ours else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
            env=None,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        viewer.join("camera")
        process.stdout.readline()
        track = viewer.wait_for_peer(timeout=30).track("video", timeout=30)
        with track.frames(mode="fifo") as frames:
            for _ in range(SETTLE):
                frames.get(timeout=60)
        before = track.frames_received
        print(file=process.stdin, flush=True)
        cpu = json.loads(process.stdout.readline())
        return cpu, (track.frames_received - before) / seconds


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with LocalCloud(limits=False) as cloud:
        for way in WAYS * (1 if quick else 3):
            found[way].append(measure(cloud, way, 3 if quick else 10))
    costs = {way: statistics.median(cpu / rate for cpu, rate in found[way]) for way in WAYS}
    for way, cost in costs.items():
        rate = statistics.median(rate for _, rate in found[way])
        ratio = cost / costs["async client"]
        print(f"{way:13} {cost * 1000:6.2f} ms a picture  {rate:4.1f} a second  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

"""Media: how late pictures come, what they cost, and what a reader does that is slow or absent.

A sender of this library sends numbered pictures, 30 a second, into a room; a receiver in a
process of its own gets them with this library, then with the published async client
(``metered-realtime``, ``iter_frames``). For comparison, aiortc alone sends to aiortc alone. They
take turns, so that what else the machine does hits all. Latency is counted from the moment at
which a picture was handed to the encoder to the moment at which the reader has it; CPU is the
receiver's. Ratios are ours to theirs: below 1 we are faster, or take less.

    python benchmarks/media.py                  # all of it: ten minutes
    python benchmarks/media.py --part latency   # one of latency, slow, memory, conversion
    python benchmarks/media.py --quick          # to see that it runs: its figures say little
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from metered_sync import MeteredPeer, RemoteTrack, mint_token  # noqa: E402
from metered_sync.engine.webrtc import incoming as received  # noqa: E402
from metered_sync.engine.webrtc.peer_connection import gather_on  # noqa: E402
from metered_sync.local import LocalCloud  # noqa: E402
from metered_sync.testing import PatternSource, read_number  # noqa: E402
from tests.scenarios.interop.conftest import python_command  # noqa: E402

SIZES = {"480p": (640, 480), "720p": (1280, 720)}
FPS = 30
NAMES = ("ours", "async client", "bare aiortc")
Result = dict[str, Any]


class Bench:
    """Sends pictures to receivers, one after another."""

    def __init__(self, cloud: LocalCloud, quick: bool) -> None:
        self._cloud = cloud
        self.quick = quick
        self._rounds = 1 if quick else 3

    def measure(self, size: str, how: str) -> dict[str, list[Result]]:
        """Have all receive, in turns."""
        found: dict[str, list[Result]] = {name: [] for name in NAMES}
        for name in NAMES * self._rounds:
            with PatternSource(*SIZES[size], fps=FPS) as source:
                found[name].append(self._run(name, source, how))
        return found

    def _run(self, name: str, source: PatternSource, how: str) -> Result:
        """Have one receive; return what it measured, with latencies."""
        # What nobody reads is decoded for a while all the same.
        settle = received.UNREAD_DECODING + 2 if how == "absent" and not self.quick else 1.5
        options = [how, "2" if self.quick else "10", str(settle)]
        if name == "bare aiortc":
            figures = asyncio.run(_bare(source, options))
        else:
            figures = self._in_a_room(name, source, options)
        pictures = figures.pop("pictures")
        late = [moment - stamp for moment, stamp in _stamped(source, pictures)]
        return {**figures, "late": late}

    def _in_a_room(self, name: str, source: PatternSource, options: list[str]) -> Result:
        cloud = self._cloud
        python = sys.executable if name == "ours" else python_command()[0]
        script = "_media_ours.py" if name == "ours" else "_media_async.py"
        token = mint_token(cloud.key_id, cloud.key_secret, peer_id="receiver")
        with MeteredPeer(**cloud.token_options("sender"), ice_servers=[]) as sender:
            sender.add_track(source.video)
            sender.join("bench")
            with _process(python, script, cloud.url, token, *options) as process:
                return _line(process)


def _process(python: str, script: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, str(HERE / script), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    )


def _line(process: subprocess.Popen[str]) -> Result:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} failed")
    result: Result = json.loads(line)
    return result


async def _bare(source: PatternSource, options: list[str]) -> Result:
    """Send with aiortc alone."""
    gather_on.set("127.0.0.1")
    pc = RTCPeerConnection(RTCConfiguration([]))
    with _process(sys.executable, "_media_bare.py", *options) as process:
        assert process.stdin is not None
        pc.addTrack(_Copy(source.video))
        await pc.setLocalDescription(await pc.createOffer())
        offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
        print(json.dumps(offer), file=process.stdin, flush=True)
        answer = await asyncio.to_thread(_line, process)
        await pc.setRemoteDescription(RTCSessionDescription(**answer))
        figures = await asyncio.to_thread(_line, process)
        await pc.close()
    return figures


class _Copy(MediaStreamTrack):
    """A track that may be ended, without an end of the source."""

    kind = "video"

    def __init__(self, track: Any) -> None:
        super().__init__()
        self._track = track

    async def recv(self) -> Any:
        return await self._track.recv()


def _stamped(source: PatternSource, pictures: list[Any]) -> list[tuple[float, float]]:
    """Return the moments of arrival and of capture of pictures whose numbers can be read."""
    found = []
    for moment, levels in pictures:
        blocks = np.kron(np.array(levels, np.uint8).reshape(5, 8), np.ones((8, 8), np.uint8))
        number = read_number(np.concatenate((blocks, blocks)))
        captured = None if number is None else source.captured(number)
        if captured is not None:
            found.append((moment, captured))
    return found


def _print(found: dict[str, list[Result]], what: str, unit: str, figure: Any) -> None:
    values = {name: statistics.median(map(figure, results)) for name, results in found.items()}
    parts = [f"ours {values['ours']:.1f}"]
    for name in NAMES[1:]:
        ratio = f" ({values['ours'] / values[name]:.2f})" if values[name] > 0 else ""
        parts.append(f"{name} {values[name]:.1f}{ratio}")
    print(f"  {what}, {unit}: {', '.join(parts)}")


def _late(percent: int) -> Callable[[Result], float]:
    """Return what gives a percentile of latencies, in ms."""

    def figure(result: Result) -> float:
        if len(result["late"]) < 2:
            raise SystemExit("too few pictures arrived")
        return statistics.quantiles(result["late"], n=100, method="inclusive")[percent - 1] * 1e3

    return figure


def latency(bench: Bench) -> None:
    """Every picture is read."""
    for size in SIZES:
        print(f"{size}, every picture read")
        found = bench.measure(size, "every")
        _print(found, "capture to reader, p50", "ms", _late(50))
        _print(found, "capture to reader, p99", "ms", _late(99))
        _print(found, "CPU", "% of a core", lambda result: result["cpu"] * 100)
        _print(found, "pictures", "a second", lambda result: result["rate"])


def slow(bench: Bench) -> None:
    """A reader works 50 ms with each picture."""
    print("480p, 50 ms of work with each picture")
    found = bench.measure("480p", "slow")
    _print(found, "age of what is read, p50", "ms", _late(50))
    _print(found, "age of what is read, p99", "ms", _late(99))
    _print(found, "memory gained", "MB", lambda result: result["memory"])


def memory(bench: Bench) -> None:
    """Nobody reads."""
    print("480p, nobody reads")
    found = bench.measure("480p", "absent")
    _print(found, "memory gained", "MB", lambda result: result["memory"])
    _print(found, "CPU", "% of a core", lambda result: result["cpu"] * 100)


def conversion(bench: Bench) -> None:
    """From a decoded frame to an array, without a network."""
    count = 30 if bench.quick else 600
    for size, (width, height) in SIZES.items():
        with PatternSource(width, height, fps=FPS) as source:
            frame = asyncio.run(_first(source))
        for format in ("bgr24", "gray"):
            incoming = received.IncomingTrack("video", id="conversion")
            track = RemoteTrack(incoming, None)
            with suppress(TimeoutError):
                track.read(timeout=0)  # from now on it reads
            ours, theirs = [], []
            for _ in range(count):
                incoming._spread(frame)
                started = time.perf_counter()
                track.read(format=format)
                between = time.perf_counter()
                frame.to_ndarray(format=format)
                theirs.append(time.perf_counter() - between)
                ours.append(between - started)
            mine, bare = (statistics.median(one) * 1e3 for one in (ours, theirs))
            print(
                f"{size} to {format}, ms: read() {mine:.2f}, to_ndarray() {bare:.2f} "
                f"({mine / bare:.2f})"
            )


async def _first(source: PatternSource) -> Any:
    assert source.video is not None
    return await source.video.recv()


PARTS = {"latency": latency, "slow": slow, "memory": memory, "conversion": conversion}


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with LocalCloud(limits=False) as cloud:
        bench = Bench(cloud, options.quick)
        for part in [options.part] if options.part else PARTS:
            PARTS[part](bench)


if __name__ == "__main__":
    main()

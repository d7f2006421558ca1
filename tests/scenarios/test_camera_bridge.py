"""The bridge from a camera into a room, as it stands, with what goes wrong in between."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    Data,
    Message,
    MeteredPeer,
    Outage,
    RemotePeer,
    SignallingClient,
    StreamRemoved,
    Subscription,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import dominant_frequency
from tests.conftest import ROOT, wait_until
from tests.support.rtsp_server import RtspServer, rtsp_server

PROGRAM = ROOT / "examples" / "camera_bridge" / "bridge.py"
PASSWORD = "s3cret"


@contextmanager
def bridge(camera: RtspServer, cloud: LocalCloud, log: Path, **more: str) -> Iterator[None]:
    """Run the program until the end of the block; it ends at SIGTERM, and shows no secret."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CAMERA_URL": camera.url("both", f"ann:{PASSWORD}@"),
        "ROOM": "cameras/test",
        "TELEMETRY_SECONDS": "0.2",
        "METERED_URL": cloud.url,
        "METERED_KEY": cloud.publishable_key,
        **more,
    }
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], env=environment, stdout=out, stderr=out
        )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(10)
    text = log.read_text()
    assert "Traceback" not in text
    assert PASSWORD not in text
    assert cloud.publishable_key not in text


def wait_for(telemetry: Subscription, **expected: Any) -> Any:
    """Wait for a report with these values; return it."""
    for _ in range(500):
        message: Message = telemetry.get(timeout=30)
        if all(message.data[name] == value for name, value in expected.items()):
            return message.data
    pytest.fail(f"never {expected}")


def order(viewer: MeteredPeer, remote: RemotePeer, command: Any) -> Any:
    """Give a command; return the answer."""
    with viewer.events(Data) as answers:
        remote.send(command)
        event: Data = answers.get(timeout=20)
    assert event.sender_peer_id == remote.id
    return event.data


def red(image: Any) -> bool:
    blue, green, red = image.mean(axis=(0, 1))
    return bool(red > 180 and max(blue, green) < 70)


def test_a_bridge(cloud: LocalCloud, tmp_path: Path) -> None:
    options = cloud.client_options()
    with (
        rtsp_server("ann", PASSWORD) as camera,
        SignallingClient(**options) as listener,
        MeteredPeer(**options) as viewer,
        listener.subscribe("cameras/test/telemetry") as telemetry,
    ):
        viewer.join("cameras/test")
        with bridge(camera, cloud, tmp_path / "log"):
            first = wait_for(telemetry, camera="connected", members=1)
            assert (first["restarts"], first["paused"], first["bitrate"]) == (0, False, None)
            remote = viewer.wait_for_peer(first["peer"], timeout=20)
            video = remote.track("video", timeout=30)
            assert video.metadata == {"role": "camera"}
            wait_until(lambda: red(video.read(timeout=30)), 30, "red pictures")
            with remote.track("audio", timeout=30).frames() as sound:
                heard = [sound.get(timeout=30).to_ndarray()[0, ::2] for _ in range(60)]
            pitch = dominant_frequency(np.concatenate(heard[20:]), 48000)
            assert pitch == pytest.approx(500, abs=10)

            answer = order(viewer, remote, {"command": "snapshot"})
            assert base64.b64decode(answer["jpeg"]).startswith(b"\xff\xd8")
            for wrong in ({"command": "explode"}, "x", {"command": "bitrate", "value": "1"}):
                assert "failed" in order(viewer, remote, wrong)
            answer = order(viewer, remote, {"command": "bitrate", "value": 200_000})
            assert "set the bit rate in the camera" in answer["why"]
            with remote.events(StreamRemoved) as removed:
                assert order(viewer, remote, {"command": "pause"}) == {"done": "pause"}
                removed.get(timeout=20)
            wait_for(telemetry, paused=True)
            assert order(viewer, remote, {"command": "resume"}) == {"done": "resume"}
            frames = remote.track("video", timeout=30).frames()
            frames.get(timeout=30)

            # The camera dies once, and the network once.
            camera.kill()
            wait_for(telemetry, camera="reconnecting")
            camera.start()
            wait_for(telemetry, camera="connected", restarts=1)
            with listener.events(Outage) as outages:
                cloud.faults.drop_connections()
                outages.get(timeout=30)

            def is_back() -> bool:
                # (The two connections come back one after the other, under new names.)
                name = wait_for(telemetry, camera="connected", members=1)["peer"]
                return name in [one.id for one in viewer.remote_peers if one.state != "closed"]

            wait_until(is_back, 60)
            (remote,) = viewer.remote_peers
            video = remote.track("video", timeout=40)
            wait_until(lambda: red(video.read(timeout=30)), 30, "red pictures again")
    log = (tmp_path / "log").read_text()
    assert "in the room cameras/test" in log
    assert "its sound is encoded here" in log
    assert "decoded, and encoded again" not in log
    assert "lost, connecting again" in log


def test_a_bridge_begins_anew(cloud: LocalCloud, tmp_path: Path) -> None:
    """Started before its camera, and put out of its room. It obeys operators only."""
    with rtsp_server("ann", PASSWORD) as camera, MeteredPeer(**cloud.client_options()) as viewer:
        camera.kill()
        viewer.join("cameras/test")
        # Its pictures cannot be sent as they are.
        url = camera.url("bframes", f"ann:{PASSWORD}@")
        log = tmp_path / "log"
        with bridge(camera, cloud, log, CAMERA_URL=url, OPERATORS="somebody-else"):
            wait_until(lambda: "again in 1 s" in (tmp_path / "log").read_text(), 30)
            camera.start()
            remote = viewer.wait_for_peer(timeout=30)
            answer = order(viewer, remote, {"command": "pause"})
            assert answer == {"failed": "pause", "why": "you are no operator of this camera"}

            with cloud.control_plane() as control:
                assert control.disconnect(remote.id) == 1
            wait_until(lambda: remote.id not in [p.id for p in viewer.remote_peers], 30)
            assert (
                viewer.wait_for_peer(timeout=30).track("video", timeout=30).read(timeout=30).any()
            )
        assert "decoded, and encoded again" in log.read_text()
        assert "B-frames" in log.read_text()

"""A browser plays media that is encoded already: it comes through the SFU as it was."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metered_sync import SfuClient, from_file
from metered_sync.testing import dominant_frequency
from tests.scenarios.browser.conftest import Tab
from tests.support.encoded import write

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("name", "codec", "mime", "options"),
    [
        pytest.param(
            *("main.mkv", "h264", "video/H264", {"profile": "main"}), marks=pytest.mark.slow
        ),
        ("high.mkv", "h264", "video/H264", {"profile": "high"}),
        ("vp8.webm", "vp8", "video/VP8", {}),
    ],
)
def test_it_plays(
    tab: Tab,
    sfu: SfuClient,
    tmp_path: Path,
    name: str,
    codec: str,
    mime: str,
    options: dict[str, Any],
) -> None:
    """Though its one key frame was sent before the browser came."""
    film = write(tmp_path / name, codec, 250, gop=1000, size=(320, 180), audio="libopus", **options)
    with from_file(film, encoded=True, loop=True) as source:
        publications: Any = sfu.publish(source, name="film")
        ids = [{"sessionId": one.session_id, "trackId": one.track_id} for one in publications]
        mids = tab.run(
            "pc.createDataChannel('idle'); await connect(); return subscribe(ids)", ids=ids
        )
        # (Grey, and brighter with each picture.)
        seen: set[int] = set()
        deadline = time.monotonic() + 20
        while len(seen) < 3:
            assert time.monotonic() < deadline, seen
            tab.run("return decoded(mids[0], 4)", mids=mids)
            pixels = tab.run("return shown(mids[0])", mids=mids)
            assert np.std(pixels) < 3
            seen.add(round(np.mean(pixels)))
        assert tab.run("return codec(mids[0])", mids=mids) == mime
        assert tab.run("return codec(mids[1])", mids=mids) == "audio/opus"
        sound = tab.run("return heard(mids[1], 0.1)", mids=mids)
        pitch = dominant_frequency(np.array(sound["samples"]), sound["rate"])
        assert pitch == pytest.approx(500, abs=20)

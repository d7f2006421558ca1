"""Numbers of numpy's, and whole floats, are taken wherever numbers are; truth values nowhere."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    AudioSource,
    ControlPlane,
    MeteredPeer,
    ReconnectOptions,
    SfuClient,
    SignallingClient,
    TurnApi,
    VideoSource,
    from_camera,
    mint_token,
)
from metered_sync.bridge.deadline import check_timeout
from metered_sync.bridge.reader import Reader
from metered_sync.engine.webrtc.encoding import check_encoding
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire.data_channels import channel_options
from tests.support.far_end import Far

KEY: dict[str, Any] = {"api_key": "pk_live_x"}
PAIR = ("sk_id_x", "sk_secret_" + 40 * "x")
FEW = [np.int16(20), np.float32(20.5), np.float64(20), Fraction(41, 2)]


def many(number: Any) -> Any:
    """Return a thousand times a number, of the same kind."""
    return number if isinstance(number, bool) else number * 1000


WHOLE: dict[str, Callable[[Any], Any]] = {
    "width of a source": lambda n: VideoSource(n, n),
    "width of a pattern": lambda n: PatternSource(n, n),
    "max_pixels of a room": lambda n: MeteredPeer(**KEY, max_pixels=n),
    "max_pixels of the SFU": lambda n: SfuClient(app_id="a", secret="s", max_pixels=n),
    "rate of sound": lambda n: Far("audio").track.pcm(rate=many(n)),
    "rate of a source": lambda n: AudioSource(input_rate=many(n)),
    "size of a reader": lambda n: Reader("a test", maxsize=n, max_bytes=n),
    "size of a queue": lambda n: Far().track.frames(mode="fifo", maxsize=n),
    "port": lambda n: LocalCloud(port=n, max_connections=n, max_messages=n),
    "retransmissions": lambda n: channel_options(max_retransmits=n),
}
ANY: dict[str, Callable[[Any], Any]] = {
    "timeout": lambda n: check_timeout("timeout", n),
    "timeout of a client": lambda n: SignallingClient(**KEY, timeout=n),
    "timeout of the control plane": lambda n: ControlPlane(*PAIR, timeout=n),
    "timeout of TURN": lambda n: TurnApi("a", api_key="k", timeout=n),
    "pace": lambda n: SignallingClient(**KEY, rate_limit=(n, n)),
    "inactivity": lambda n: SignallingClient(**KEY, inactivity_timeout=n),
    "reconnects": lambda n: ReconnectOptions(initial_delay=n, max_attempts=n),
    "rate of pictures": lambda n: VideoSource(64, 64, fps=n),
    "rate of a pattern": lambda n: PatternSource(64, 64, n, duration=n),
    "pitch of a tone": lambda n: ToneSource(n, duration=n),
    "level of a tone": lambda n: ToneSource(level=n if n is True else -n),
    "sound that waits": lambda n: AudioSource(max_buffered_seconds=n),
    "length of a piece": lambda n: Far("audio").track.pcm(chunk=n if n is True else n / 100),
    "bit rate": lambda n: check_encoding({"video"}, many(n), None, None),
    "rate that is sent": lambda n: check_encoding({"video"}, None, n, None),
    "life of a packet": lambda n: channel_options(max_packet_life_time=n),
    "life of a token": lambda n: mint_token(*PAIR, peer_id="a", ttl=n),
}


@pytest.mark.parametrize("what", list(WHOLE))
@pytest.mark.parametrize("number", [np.int64(64), np.uint16(64), 64.0, np.float32(64)])
def test_whole_numbers(what: str, number: Any) -> None:
    WHOLE[what](number)


@pytest.mark.parametrize("what", list(ANY))
@pytest.mark.parametrize("number", FEW)
def test_numbers(what: str, number: Any) -> None:
    ANY[what](number)


@pytest.mark.parametrize("what", [*WHOLE, *ANY])
def test_truth_values_are_none(what: str) -> None:
    call = (WHOLE | ANY)[what]
    with pytest.raises((ValueError, TypeError)):
        call(True)


def test_what_is_taken_is_python_s_own() -> None:
    pictures = VideoSource(np.int64(64), 48.0, np.float32(12.5))  # type: ignore[arg-type]
    assert repr(pictures).startswith("<VideoSource VideoSource(64, 48, 12.5): ready")
    assert type(SignallingClient(**KEY, timeout=np.float32(2.5))._timeout) is float
    assert repr(ReconnectOptions(max_attempts=np.int64(3)).max_attempts) == "3"
    encoding = check_encoding({"video"}, np.float64(500_000), np.int64(15), None)["video"]
    assert repr((encoding.video_bitrate, encoding.max_framerate)) == "(500000, 15)"
    with pytest.raises(ValueError, match="device must be a whole number from 0 up"):
        from_camera(np.int64(-1))  # type: ignore[arg-type]

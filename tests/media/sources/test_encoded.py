"""What may be written into a source of encoded pictures, and what is refused, with a remedy."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest

from metered_sync import ClosedError, EncodedSource, MediaError
from metered_sync.engine.sending.access_units import START_CODE, split_units
from tests.support.encoded import packets, units

SIZE = (160, 96)


def written(codec: Any, *access_units: Any) -> int:
    """Write units into a new source; return how many of them were dropped."""
    source = EncodedSource(codec, 240)
    source.track  # noqa: B018 - it is handed out
    for unit in access_units:
        source.write(unit)
    source.stop()
    return source.dropped


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_pictures_may_be_bytes_of_any_kind_or_packets(codec: Any) -> None:
    made = units(codec, 3, size=SIZE)
    forms: tuple[Any, ...] = (made[0], bytearray(made[1]), memoryview(made[2]))
    assert written(codec, *forms, np.frombuffer(made[0], np.uint8)) == 0
    assert written(codec, *packets(codec, 3, size=SIZE)) == 0
    assert written(codec, made[1], made[2], made[0], made[1]) == 2  # before the first key frame
    assert written(codec, made[1], made[0]) == 1


@pytest.mark.parametrize(
    ("codec", "name", "words"),
    [
        ("h264", "vp8", "no.* H.264 in Annex B"),
        ("h264", "hevc", r"this is H\.265 \(HEVC\)"),
        ("h264", "noise", "not H.264 in Annex B"),
        ("h264", "image", "not H.264 in Annex B"),
        ("vp8", "h264", "no picture of VP8"),
        ("vp8", "hevc", "no picture of VP8"),
        ("vp8", "noise", "no picture of VP8"),
        ("vp8", "image", "no picture of VP8.*VideoSource"),
        ("vp8", "short", "no picture of VP8"),
        ("vp8", "cut off", "no picture of VP8"),
        ("h264", "huge", "524.* bytes is more than receivers take"),
        ("vp8", "huge", "524.* bytes is more than receivers take"),
        ("h264", "empty", "without a byte"),
        ("vp8", "empty", "without a byte"),
    ],
)
def test_what_is_no_such_picture_is_refused(codec: Any, name: str, words: str) -> None:
    wrong: dict[str, Any] = {
        "noise": bytes(range(6, 256)),
        "image": np.zeros((48, 64, 3), np.uint8),
        "short": b"\x10",
        "cut off": units("vp8", 1, size=SIZE)[0][:40],
        "huge": units(codec, 1, size=SIZE)[0] + bytes(5 << 20),
        "empty": b"",
    }
    data = wrong[name] if name in wrong else units(name, 1, size=SIZE)[0]
    source = EncodedSource(codec, 240)
    hevc = (codec, name) == ("h264", "hevc")
    with pytest.raises(MediaError if hevc else ValueError, match=words):
        source.write(data)
    good = units(codec, 2, size=SIZE)
    for unit in good:  # it goes on
        source.write(unit)
    assert source.dropped == 0
    source.stop()


@pytest.mark.parametrize("wrong", [None, 5, "text", av.VideoFrame(64, 48, "yuv420p")])
def test_what_has_no_bytes_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
        written("h264", wrong)


def test_a_key_frame_without_parameters_says_so() -> None:
    """So are those of encoders that give them apart, as FFmpeg's do with global headers."""
    first, second = units("h264", 2, gop=1, size=SIZE)
    parts = list(split_units(first))
    headers = [unit for unit in parts if unit[0] & 0x1F in (7, 8)]
    picture = [unit for unit in parts if unit[0] & 0x1F == 5]
    source = EncodedSource("h264", 240)
    with pytest.raises(MediaError, match=r"without its parameters.*write them first"):
        source.write(START_CODE + START_CODE.join(picture))
    assert source.dropped == 1
    source.write(START_CODE + START_CODE.join(headers))
    source.write(START_CODE + START_CODE.join(picture))
    source.write(second)
    assert source.dropped == 1
    source.stop()


def test_b_frames_are_refused_and_the_remedy_is_the_encoders() -> None:
    source = EncodedSource("h264", 240)
    with pytest.raises(MediaError, match=r"B-frames.*have its encoder make none \(bf=0"):
        for unit in units("h264", 12, size=SIZE, bf="2"):
            source.write(unit)
    source.stop()


@pytest.mark.parametrize("end", ["end", "stop"])
def test_nothing_is_written_after_the_end(end: str) -> None:
    source = EncodedSource("vp8", 240)
    getattr(source, end)()
    with pytest.raises(ClosedError, match="make another one to write to"):
        source.write(units("vp8", 1, size=SIZE)[0])

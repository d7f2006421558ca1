"""Test the texts of seconds, bytes, bit rates, and of how far something has come."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.cli.media.figures import (
    bitrate_text,
    bytes_text,
    clock_text,
    parse_bitrate,
    published_text,
    recorded_text,
)
from metered_sync.media.recording import RecordedStream, RecordingInfo


def test_seconds_bytes_and_bit_rates() -> None:
    assert [clock_text(s) for s in (0, 7.9, 61, 3723)] == ["0:00", "0:07", "1:01", "1:02:03"]
    assert [bitrate_text(r) for r in (0, 850_400, 1_250_000)] == [
        "0 kbit/s", "850 kbit/s", "1.25 Mbit/s",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (0, 12_345, 3_400_000)] == ["0 kB", "12 kB", "3.4 MB"]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("800000", 800_000), ("800k", 800_000), ("1.5M", 1_500_000), (" 2M ", 2_000_000)],
)
def test_a_bit_rate_is_read(text: str, rate: int) -> None:
    assert parse_bitrate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-5", "0", "0k", "1e6", "5G", "1.5 Mbit", "٣k"])
def test_what_is_no_bit_rate_is_told_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"like 800k or 1\.5M, in bits per second"):
        parse_bitrate(text)


def counts(kind: str, frames: int, bitrate: float | None) -> dict[str, Any]:
    return {"kind": kind, "frames_sent": frames, "bitrate": bitrate}


def test_publishing_shows_time_bit_rate_pictures_and_watchers() -> None:
    both = [counts("video", 300, 1_000_000.0), counts("audio", 500, 32_000.0)]
    assert published_text(10.4, both, 2) == "0:10  1.03 Mbit/s  300 frames  2 watching"
    assert published_text(10.4, both, None) == "0:10  1.03 Mbit/s  300 frames"
    sound = [counts("audio", 1, None)]
    assert published_text(0.1, sound, 0) == "0:00  0 kbit/s  1 piece of sound  0 watching"


def test_recording_shows_time_bit_rate_size_frames_and_what_was_dropped() -> None:
    video = RecordedStream("video", "libx264", 250, 10.0, (320, 240))
    audio = RecordedStream("audio", "aac", 470, 10.0, None)
    info = RecordingInfo("a.mp4", 10.0, 250, 0, 1_250_000, (video, audio))
    assert recorded_text(info) == "0:10  1.00 Mbit/s  1.2 MB  250 frames"
    info = RecordingInfo("a.wav", 10.0, 470, 3, 125_000, (audio,))
    assert recorded_text(info) == "0:10  100 kbit/s  125 kB  470 pieces of sound  3 dropped"
    nothing = RecordingInfo("a.mp4", 0.0, 0, 0, 0, ())
    assert recorded_text(nothing) == "0:00  0 kbit/s  0 kB  0 frames"

"""Bring H.264 and VP8 into the form in which they are sent, or refuse them."""

from __future__ import annotations

import pytest

from metered_sync import MediaError
from metered_sync.engine.sending.access_units import MAX_PARAMETER_SETS, access_units, split_units
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from tests.support.encoded import numbers, units

START = b"\0\0\0\x01"


def kinds(data: bytes) -> list[int]:
    return [unit[0] & 0x1F for unit in split_units(data)]


def bare(data: bytes) -> bytes:
    """Return an access unit without parameter sets."""
    return b"".join(START + unit for unit in split_units(data) if unit[0] & 0x1F not in (7, 8))


def parameters(data: bytes) -> bytes:
    return b"".join(START + unit for unit in split_units(data) if unit[0] & 0x1F in (7, 8))


def test_parameters_are_put_before_each_idr_picture() -> None:
    made = units(count=25)
    # As FFmpeg has them from a camera: in the session's description only.
    stream = access_units("h264", "a camera", parameters(made[0]))
    read = [stream.read(bare(unit)) for unit in made]
    assert [one is not None and one.key for one in read] == [n % 10 == 0 for n in range(25)]
    data = [one.data for one in read if one is not None]
    assert [kinds(unit)[:2] for unit in data[::10]] == [[7, 8]] * 3
    assert all(not {7, 8} & set(kinds(unit)) for n, unit in enumerate(data) if n % 10)
    for start in (0, 10, 20):
        assert numbers("h264", data[start:]) == list(range(start, 25))
    # And where they are in the stream already, there they stay.
    again = access_units("h264", "a camera")
    assert kinds(again.read(made[0]).data).count(7) == 1  # type: ignore[union-attr]
    assert kinds(again.read(bare(made[10])).data)[:2] == [7, 8]  # type: ignore[union-attr]


def test_parameters_that_change_take_the_place_of_others() -> None:
    small, large = units(count=5), units(count=5, size=(128, 96))
    stream = access_units("h264", "a camera", parameters(small[0]))
    stream.read(bare(small[0]))
    stream.read(parameters(large[0]))  # (alone, as some cameras send them)
    read = stream.read(bare(large[0]))
    assert read is not None
    assert parameters(read.data) == parameters(large[0])


@pytest.mark.parametrize(
    ("profile", "begins", "words"),
    [("baseline", "42c0", "Baseline"), ("main", "4d40", "Main"), ("high", "6400", "High")],
)
def test_the_profile_is_the_streams(profile: str, begins: str, words: str) -> None:
    stream = access_units("h264", "a camera")
    assert stream.format is None
    stream.read(units(count=1, profile=profile)[0])
    assert stream.format is not None
    assert stream.format.profile_level_id.startswith(begins)
    assert words in str(stream.format)
    assert f"profile-level-id={begins}" in stream.format.parameters


def test_b_frames_are_refused() -> None:
    made = units(count=12, bf="2", b_adapt="0")
    stream = access_units("h264", "from_rtsp('rtsp://camera/')")
    with pytest.raises(MediaError, match=r"camera/'\) has B-frames, .* leave encoded=True out"):
        for unit in made:
            stream.read(unit)


def test_what_is_no_picture_is_left_out() -> None:
    made = units(count=3)
    stream = access_units("h264", "a camera")
    assert stream.read(made[0][:0]) is None
    assert stream.read(START + b"\x09\xf0") is None  # a delimiter
    assert stream.read(bare(made[0])) is None  # nobody could decode it
    assert stream.read(parameters(made[0])) is None
    read = stream.read(START + b"\x09\xf0" + made[0] + START + b"\x0c\xff\xff\x80")
    assert read is not None
    assert not {9, 12} & set(kinds(read.data))
    for size in range(len(made[1])):  # whatever was cut off, or is none
        stream.read(made[1][:size])
        stream.read(bytes(size % 7) + made[1][size:])


def test_vp8_and_opus_are_left_as_they_are() -> None:
    made = units("vp8", 12)
    stream = access_units("vp8", "a file")
    read = [stream.read(unit) for unit in made]
    assert [one.data for one in read if one] == made
    assert [n for n, one in enumerate(read) if one and one.key] == [0, 10]
    assert stream.format == StreamFormat("vp8")
    sound = access_units("opus", "a file").read(b"\xfc\x01")
    assert sound is not None
    assert sound.key


def test_parameters_that_change_do_so_however_many_there_are() -> None:
    small, large = units(count=1)[0], units(count=1, size=(128, 96))[0]
    stream = access_units("h264", "a camera")
    stream.read(small)
    for number in range(MAX_PARAMETER_SETS + 20):
        stream.read(START + b"\x68" + golomb(number) + b"\x80")
    stream.read(parameters(large))
    read = stream.read(bare(large))
    assert read is not None
    assert set(split_units(parameters(large))) <= set(split_units(read.data))


def golomb(number: int) -> bytes:
    """Return a number as units of H.264 have it, with ones up to the end of the byte."""
    bits = f"{number + 1:b}"
    bits = "0" * (len(bits) - 1) + bits
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")

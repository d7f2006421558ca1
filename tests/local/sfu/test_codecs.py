"""Test which codecs and header extensions are chosen, matched and renumbered."""

import dataclasses

import pytest

from metered_sync.local.sfu import codecs
from metered_sync.wire.sdp import Codec, Extension


def h264(number: int, profile: str, mode: str = "1") -> Codec:
    return Codec(number, "H264", 90000, 1, f"packetization-mode={mode};profile-level-id={profile}")


VP8 = Codec(96, "VP8", 90000)
TABLE = (
    VP8,
    Codec(98, "VP9", 90000, 1, "profile-id=0"),
    Codec(100, "VP9", 90000, 1, "profile-id=2"),
    h264(102, "42001f"),
    h264(104, "42e01f"),
    h264(106, "42e01f", "0"),
    h264(108, "640c1f"),
    Codec(110, "AV1", 90000, 1, "level-idx=5;profile=0;tier=0"),
)


@pytest.mark.parametrize(
    ("codec", "number"),
    [
        (Codec(120, "vp8", 90000), 96),
        (Codec(120, "VP9", 90000), 98),
        (Codec(120, "VP9", 90000, 1, "profile-id=2"), 100),
        (Codec(120, "VP9", 90000, 1, "profile-id=1"), None),
        (h264(120, "42c02a"), 104),  # another level and spelling of constrained baseline
        (h264(120, "4d801f"), 104),
        (h264(120, "42E01F", "0"), 106),
        (h264(120, "640c2a"), 108),
        (h264(120, "f4001f"), 102),  # unknown profile: the first of the same mode
        (Codec(120, "AV1", 90000), 110),
        (Codec(120, "H265", 90000), None),
        (Codec(120, "VP8", 48000), None),
    ],
)
def test_find_match(codec, number):
    match = codecs.find_match(codec, TABLE)
    assert (match.payload_type if match else None) == number


def test_repair_formats_are_negotiated_away():
    offered = [
        Codec(96, "VP8", 90000, 1, "", ("transport-cc", "nack", "nack pli", "goog-remb", "x")),
        Codec(97, "rtx", 90000, 1, "apt=96"),
        Codec(98, "red", 90000),
        Codec(99, "flexfec-03", 90000),
    ]
    (left,) = codecs.forwardable(offered)
    assert left.feedback == ("nack", "nack pli", "goog-remb")


def test_extensions_of_one_hop_are_negotiated_away():
    mid = Extension(4, codecs.MID)
    twcc = Extension(3, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01")
    assert codecs.known_extensions([mid, twcc]) == (mid,)


def test_an_offer_leads_with_the_publishers_codecs():
    offered = codecs.with_formats(TABLE, [Codec(35, "AV1", 90000), Codec(99, "VP8", 90000)], ())
    assert [codec.payload_type for codec in offered] == [110, 96, 98, 100, 102, 104, 106, 108]


def test_a_codec_that_the_table_lacks_gets_a_free_number():
    wanted = [Codec(45, "AV1", 90000), Codec(96, "H265", 90000)]
    offered = codecs.with_formats((VP8,), wanted, {45, 97})
    assert [(codec.name, codec.payload_type) for codec in offered] == [
        ("AV1", 98),
        ("H265", 99),
        ("VP8", 96),
    ]


def test_default_tables_avoid_what_has_a_meaning_already():
    plain = codecs.default_codecs("video", ())
    assert plain == codecs.DEFAULT_CODECS["video"]
    moved = codecs.default_codecs("video", {97, 98})
    numbers = [codec.payload_type for codec in moved]
    assert len(set(numbers)) == len(numbers)
    assert not {97, 98} & set(numbers)
    assert [codec.name for codec in moved] == [codec.name for codec in plain]
    known = [Extension(1, "urn:other"), Extension(4, codecs.MID), Extension(8, "urn:more")]
    mid, send_time, colours, orientation = codecs.default_extensions("video", known)
    assert mid.id == 4
    assert send_time.id == 3
    assert (colours.id, orientation.id) == (2, 13)


def test_a_table_never_changes_a_number():
    other = Codec(96, "H265", 90000)
    more = dataclasses.replace(VP8, payload_type=120)
    assert codecs.merge((VP8,), (other, more)) == (VP8, more)

"""Test RTP headers and header extensions against aiortc's."""

import pytest
from aiortc import rtp as other

from metered_sync.local.sfu.rtp import element, extension_block, parse_packet


def build(extension: tuple[int, bytes] = (0, b""), **fields: object) -> bytes:
    """A packet as aiortc, which is not ours, makes it."""
    packet = other.RtpPacket(payload_type=96, sequence_number=65535, timestamp=2**32 - 1)
    packet.ssrc = 7
    packet.payload = b"payload"
    for name, value in fields.items():
        setattr(packet, name, value)
    data = packet.serialize(other.HeaderExtensionsMap())
    profile, value = extension
    if profile:
        start = 12 + 4 * len(packet.csrc)
        words = (len(value) // 4).to_bytes(2, "big")
        head = bytes((data[0] | 0x10,)) + data[1:start]
        data = head + profile.to_bytes(2, "big") + words + value + data[start:]
    return data


def test_a_plain_packet():
    packet = parse_packet(build(marker=1))
    assert packet is not None
    assert (packet.marker, packet.payload_type, packet.seq) == (0x80, 96, 65535)
    assert (packet.timestamp, packet.ssrc) == (2**32 - 1, 7)
    assert (packet.csrcs, packet.elements, packet.payload) == (b"", [], b"payload")


def test_contributing_sources_stay():
    packet = parse_packet(build(csrc=[1, 2]))
    assert packet is not None
    assert packet.csrcs == bytes((0, 0, 0, 1, 0, 0, 0, 2))
    assert packet.flags & 0x0F == 2


def test_padding_stays_part_of_the_payload():
    packet = parse_packet(build(payload=b"", padding_size=4))
    assert packet is not None
    assert packet.flags & 0x20
    assert len(packet.payload) == packet.payload[-1] == 4


def test_header_extensions():
    one = other.pack_header_extensions([(1, b"mid"), (3, b"\x01\x02\x03")])
    two = other.pack_header_extensions([(1, b""), (30, b"x" * 20)])
    for extension, expected in (
        (one, [(1, b"mid"), (3, b"\x01\x02\x03")]),
        (two, [(1, b""), (30, b"x" * 20)]),
        ((0xBEDE, b"\x00\x10a\xf0\x10b\x00\x00"), [(1, b"a")]),  # id 15 ends it
        ((0xBEDE, b"\x10a\x00\x3f"), [(1, b"a")]),  # cut off
        ((0x1234, b"abcd"), []),  # another profile
    ):
        packet = parse_packet(build(extension))
        assert packet is not None
        assert packet.elements == expected
        assert packet.payload == b"payload"
        assert not packet.flags & 0x10


@pytest.mark.parametrize("data", [b"", bytes(11), b"\x82" + bytes(15), b"\x90" + bytes(13)])
def test_a_cut_off_packet(data):
    assert parse_packet(data) is None


def test_an_extension_beyond_the_end():
    assert parse_packet(b"\x90" + bytes(11) + b"\xbe\xde\x00\x05" + bytes(4)) is None


def test_elements_are_built():
    block = extension_block([element(1, b"s12"), element(14, b"x" * 16)])
    profile = int.from_bytes(block[:2], "big")
    assert other.unpack_header_extensions(profile, block[4:]) == [(1, b"s12"), (14, b"x" * 16)]
    assert len(block) % 4 == 0
    assert element(15, b"x") == element(0, b"x") == element(1, b"") == element(1, b"x" * 17) == b""
    assert extension_block([b"", b""]) == b""

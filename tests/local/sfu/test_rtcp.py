"""Test RTCP messages against aiortc's parser, in both directions."""

import pytest
from aiortc import rtp as other

from metered_sync.local.sfu import rtcp


def only(data: bytes) -> rtcp.RtcpMessage:
    (message,) = rtcp.parse_compound(data)
    return message


@pytest.mark.parametrize(
    "missing", [[5], [5, 6, 21], [5, 22, 23], [65534, 65535, 0, 1, 16], [1, 40, 80]]
)
def test_nack(missing):
    data = rtcp.nack(1, 2, missing)
    (packet,) = other.RtcpPacket.parse(data)
    assert (packet.ssrc, packet.media_ssrc) == (1, 2)
    assert [seq & 0xFFFF for seq in packet.lost] == missing  # aiortc does not wrap around
    message = only(data)
    assert rtcp.is_nack(message)
    feedback = rtcp.feedback(message)
    assert feedback is not None
    assert feedback.media_ssrc == 2
    assert list(rtcp.nacked(feedback.details)) == missing


def test_pli():
    data = rtcp.pli(1, 2)
    (packet,) = other.RtcpPacket.parse(data)
    assert (packet.fmt, packet.ssrc, packet.media_ssrc) == (other.RTCP_PSFB_PLI, 1, 2)
    assert rtcp.is_pli(only(data))
    assert not rtcp.is_fir(only(data))


def test_fir_names_its_targets_in_the_details():
    details = bytes((0, 0, 0, 9, 1, 0, 0, 0)) + bytes((0, 0, 0, 10, 1, 0, 0, 0))
    data = bytes(other.RtcpPsfbPacket(other.RTCP_PSFB_FIR, 1, 0, details))
    assert rtcp.is_fir(only(data))
    feedback = rtcp.feedback(only(data))
    assert feedback is not None
    assert list(rtcp.fir_targets(feedback.details)) == [9, 10]


@pytest.mark.parametrize("rate", [1, 300_000, 5_000_000, 1_000_000_000])
def test_remb(rate):
    (packet,) = other.RtcpPacket.parse(rtcp.remb(1, rate, [7, 8]))
    value, ssrcs = other.unpack_remb_fci(packet.fci)
    assert ssrcs == [7, 8]
    assert rate * 0.999 <= value <= rate


def test_receiver_report():
    report = rtcp.ReceptionReport(7, 128, -3, (1 << 16) + 5, 90, 0x12345678, 65536)
    (packet,) = other.RtcpPacket.parse(rtcp.receiver_report(1, [report]))
    (found,) = packet.reports
    assert packet.ssrc == 1
    assert (found.ssrc, found.fraction_lost, found.packets_lost) == (7, 128, -3)
    assert (found.highest_sequence, found.jitter) == ((1 << 16) + 5, 90)
    assert (found.lsr, found.dlsr) == (0x12345678, 65536)


@pytest.mark.parametrize("cname", [b"a", b"abcdef", b"x" * 32])
def test_sender_report_is_passed_on(cname):
    info = other.RtcpSenderInfo(1 << 40, 90000, 10, 1000)
    block = other.RtcpReceiverInfo(1, 0, 0, 0, 0, 0, 0)
    message = only(bytes(other.RtcpSrPacket(7, info, [block])))
    assert rtcp.sender_info(message) == (7, 1 << 40)
    report, description = other.RtcpPacket.parse(rtcp.sender_report(message, 9, cname))
    assert (report.ssrc, report.sender_info, report.reports) == (9, info, [])
    assert description.chunks[0].ssrc == 9
    assert description.chunks[0].items == [(1, cname)]


def test_bye():
    _, packet = other.RtcpPacket.parse(rtcp.bye(9))
    assert packet.sources == [9]


def test_a_cut_off_compound_ends_there():
    data = rtcp.pli(1, 2) + rtcp.pli(1, 3)
    assert len(list(rtcp.parse_compound(data))) == 2
    for end in range(len(data)):
        messages = list(rtcp.parse_compound(data[:end]))
        assert len(messages) == end // 12
    assert list(rtcp.parse_compound(b"\x00" * 8)) == []
    short = rtcp.RtcpMessage(206, 1, b"1234")
    assert rtcp.feedback(short) is None
    assert rtcp.sender_info(rtcp.RtcpMessage(200, 0, b"1234")) is None

"""Test that no section of a narrowed description may send, however it was written."""

from __future__ import annotations

import pytest

from metered_sync.gate.descriptions import SendingRefusedError, receive_only
from metered_sync.wire import sdp

HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
SECTION = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:96 opus/48000/2\r\n"
)


def section(text: str) -> sdp.Section:
    (only,) = sdp.parse(text).sections
    return only


@pytest.mark.parametrize(
    ("of_the_session", "own", "becomes"),
    [
        ("", "a=sendrecv\r\n", "recvonly"),
        ("", "", "recvonly"),  # by default
        ("a=sendrecv\r\n", "", "recvonly"),
        ("", "a=recvonly\r\n", "recvonly"),
        ("", "a=inactive\r\n", "inactive"),
        ("a=inactive\r\n", "", "inactive"),
        ("a=inactive\r\n", "a=sendrecv\r\n", "recvonly"),
        ("", "a=inactive\r\na=sendrecv\r\n", "recvonly"),
        ("", "a=sendrecv\r\na=inactive\r\n", "recvonly"),
        ("", "a=SendRecv\r\n", "recvonly"),  # (nobody knows it: the default holds)
        ("", "a=sendrecv \r\n", "recvonly"),
        ("", "a=recvonly:x\r\n", "recvonly"),
        ("a=sendonly\r\n", "a=recvonly\r\n", "recvonly"),
    ],
)
def test_every_section_receives_at_most(of_the_session: str, own: str, becomes: str) -> None:
    narrowed = receive_only(HEAD + of_the_session + SECTION + own)
    assert section(narrowed).direction == becomes
    assert narrowed.count("a=sendrecv\r\n") == narrowed.count("a=sendonly") == 0


@pytest.mark.parametrize(
    ("of_the_session", "own"),
    [
        ("", "a=sendonly\r\n"),
        ("a=sendonly\r\n", ""),
        ("", "a=recvonly\r\na=sendonly\r\n"),
        ("", "a=sendonly\r\na=recvonly\r\n"),
    ],
)
def test_one_that_only_sends_is_refused(of_the_session: str, own: str) -> None:
    with pytest.raises(SendingRefusedError):
        receive_only(HEAD + of_the_session + SECTION + own)
    with pytest.raises(SendingRefusedError):  # wherever it stands
        receive_only(HEAD + of_the_session + SECTION + "a=recvonly\r\n" + SECTION + own)


def test_senders_are_not_announced() -> None:
    announced = (
        "a=msid:stream track\r\na=ssrc:1 cname:x\r\na=ssrc:1 msid:stream track\r\n"
        "a=ssrc-group:FID 1 2\r\na=rid:h send\r\na=simulcast:send h\r\n"
    )
    narrowed = receive_only(HEAD + "a=msid-semantic:WMS *\r\n" + SECTION + announced)
    for word in ("a=msid:", "a=ssrc", "a=rid", "a=simulcast"):
        assert word not in narrowed
    assert "a=msid-semantic:WMS *" in narrowed
    assert "a=mid:0" in narrowed


def test_data_channels_are_left_alone() -> None:
    data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sctp-port:5000\r\n"
    assert receive_only(HEAD + data) == HEAD + data


def test_line_ends_hide_nothing() -> None:
    assert section(receive_only((HEAD + SECTION).replace("\r\n", "\n"))).direction == "recvonly"
    for sign in "\r", "\x0b", "\x85", "\u2028", "\x00":
        with pytest.raises(sdp.SdpError):
            receive_only(HEAD + SECTION + f"a=recvonly{sign}a=sendonly\r\n")


def test_what_is_no_description_is_refused() -> None:
    for text in ("", "x", HEAD + "a=mid:0\r\n" * 100_000):
        with pytest.raises(sdp.SdpError):
            receive_only(text)

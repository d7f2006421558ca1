"""Test session descriptions of browsers and of aiortc: parsed, built, and refused."""

import dataclasses

import pytest

from metered_sync.wire import sdp

BROWSER = """\
v=0
o=- 4611732154213812345 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 9 UDP/TLS/RTP/SAVPF 111 0 63
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 x.local 54321 typ host generation 0
a=ice-ufrag:abcd
a=ice-pwd:the-ice-password-of-it
a=ice-options:trickle
a=fingerprint:sha-256 aa:bb:0c
a=setup:actpass
a=mid:0
a=extmap:14 urn:ietf:params:rtp-hdrext:toffset
a=extmap:4/sendonly urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=msid:stream mic
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=ssrc:1234 cname:name
a=ssrc:1234 msid:stream mic
m=video 0 UDP/TLS/RTP/SAVPF 96 97
a=bundle-only
a=mid:1
a=sendrecv
a=msid:- camera
a=rtcp-fb:* nack
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack pli
a=fmtp:96 level-asymmetry-allowed=1;Packetization-Mode=1; profile-level-id=42e01f
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rid:hi send
a=rid:lo send
a=simulcast:send hi;lo
a=ssrc-group:FID 4294967295 2
a=ssrc:4294967295 cname:name
a=ssrc:2 cname:name
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
m=video 0 UDP/TLS/RTP/SAVPF 96
a=mid:3
a=inactive
"""


def test_parse():
    description = sdp.parse(BROWSER.replace("\n", "\r\n"))
    assert description.bundle == ("0", "1", "2")
    assert not description.ice_lite
    audio, video, channel, rejected = description.sections
    assert (audio.kind, audio.mid, audio.port, audio.direction) == ("audio", "0", 9, "sendonly")
    assert (audio.sends, audio.receives, audio.rejected) == (True, False, False)
    assert audio.codecs == (
        sdp.Codec(111, "opus", 48000, 2, "minptime=10;useinbandfec=1", ("transport-cc",)),
        sdp.Codec(0, "PCMU", 8000),
        sdp.Codec(63, "red", 48000, 2),
    )
    assert audio.extensions[1] == sdp.Extension(4, "urn:ietf:params:rtp-hdrext:sdes:mid")
    assert audio.msid == ("stream", "mic")
    assert audio.ssrcs == (1234,)
    assert audio.cname == "name"
    assert (audio.ice_ufrag, audio.ice_pwd) == ("abcd", "the-ice-password-of-it")
    assert audio.fingerprints == (sdp.Fingerprint("sha-256", "AA:BB:0C"),)
    assert (audio.setup, audio.rtcp_mux, audio.rtcp_rsize) == ("actpass", True, True)
    assert audio.candidates[0].endswith("typ host generation 0")
    # Port 0 with bundle-only is not a rejection.
    assert (video.rejected, video.sends, video.receives) == (False, True, True)
    assert video.codecs[0].feedback == ("nack", "nack pli")
    assert video.codecs[0].parameters == {
        "level-asymmetry-allowed": "1",
        "packetization-mode": "1",
        "profile-level-id": "42e01f",
    }
    assert video.ssrc_groups == (sdp.SsrcGroup("FID", (4294967295, 2)),)
    assert video.rids == (("hi", "send"), ("lo", "send"))
    assert video.simulcast == "send hi;lo"
    assert (channel.kind, channel.formats) == ("application", ("webrtc-datachannel",))
    assert (channel.sctp_port, channel.max_message_size) == (5000, 262144)
    assert rejected.rejected
    assert not rejected.receives


def test_round_trip():
    first = sdp.parse(BROWSER)
    again = sdp.parse(sdp.build(first))
    assert again == first
    assert sdp.build(again) == sdp.build(first)


def test_the_head_is_inherited():
    text = """\
v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-lite
a=ice-ufrag:head
a=ice-pwd:headpassword
a=fingerprint:sha-256 AA
a=setup:active
a=recvonly
a=extmap:1 urn:a
m=audio 9 UDP/TLS/RTP/SAVPF 0
a=mid:a
m=audio 9 UDP/TLS/RTP/SAVPF 0
a=mid:b
a=ice-ufrag:own
a=fingerprint:sha-256 BB
a=sendonly
a=extmap:1 urn:b
"""
    description = sdp.parse(text)
    assert description.ice_lite
    first, second = description.sections
    assert (first.ice_ufrag, first.setup, first.direction) == ("head", "active", "recvonly")
    assert first.extensions == (sdp.Extension(1, "urn:a"),)
    assert (second.ice_ufrag, second.ice_pwd) == ("own", "headpassword")
    assert second.fingerprints == (sdp.Fingerprint("sha-256", "BB"),)
    assert second.extensions == (sdp.Extension(1, "urn:b"),)
    assert second.direction == "sendonly"


HEAD = "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\n"
VIDEO = HEAD + "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:0\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "v=1\n",
        "m=video 9 UDP/TLS/RTP/SAVPF 96\n",
        HEAD + "nonsense\n",
        HEAD + "m=video\n",
        HEAD + "m=video x UDP/TLS/RTP/SAVPF 96\n",
        HEAD + "m=video 99999 UDP/TLS/RTP/SAVPF 96\n",
        HEAD + "m=video 9 UDP/TLS/RTP/SAVPF abc\n",
        HEAD + "m=video 9 UDP/TLS/RTP/SAVPF 200\n",
        HEAD + "m=video 9 UDP/TLS/RTP/SAVPF ٣\n",
        HEAD.replace("o=- 1 1 IN IP4 0.0.0.0", "o=- 1"),
        HEAD.replace("o=- 1 1", "o=- x y"),
        VIDEO + "a=rtpmap:96\n",
        VIDEO + "a=rtpmap:96 VP8\n",
        VIDEO + "a=rtpmap:96 VP8/fast\n",
        VIDEO + "a=rtpmap:" + "9" * 5000 + " VP8/90000\n",
        VIDEO + "a=fmtp:x y\n",
        VIDEO + "a=rtcp-fb:x nack\n",
        VIDEO + "a=extmap:1\n",
        VIDEO + "a=extmap:x urn:a\n",
        VIDEO + "a=ssrc:99999999999 cname:x\n",
        VIDEO + "a=ssrc-group:\n",
        VIDEO + "a=ssrc-group:FID x\n",
        VIDEO + "a=rid:hi\n",
        VIDEO + "a=fingerprint:sha-256\n",
        VIDEO + "a=sctp-port:many\n",
        VIDEO + "a=msid:a\rb c\n",
        VIDEO + "a=x\x00y\n",
    ],
)
def test_malformed(text):
    with pytest.raises(sdp.SdpError):
        sdp.parse(text)


def test_cut_off_anywhere_raises_nothing_else():
    for end in range(len(BROWSER)):
        try:
            sdp.parse(BROWSER[:end])
        except sdp.SdpError:
            pass


def test_the_ice_password_stays_secret():
    description = sdp.parse(BROWSER)
    assert "the-ice-password" not in repr(description)
    with pytest.raises(sdp.SdpError) as caught:
        sdp.parse(BROWSER.replace("the-ice-password", "the-ice\x00password"))
    assert "password" not in str(caught.value)


def test_a_built_section_without_codecs_keeps_its_formats():
    section = dataclasses.replace(sdp.parse(BROWSER).sections[2], port=0)
    text = sdp.build(sdp.Description((section,)))
    assert "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n" in text


def test_an_sfus_description_both_ways():
    section = sdp.Section(
        kind="video",
        port=0,
        codecs=(sdp.Codec(96, "VP8", 90000, fmtp="; ;a=1"),),
        end_of_candidates=True,
    )
    description = sdp.Description((section,), ice_lite=True, origin_id=1, origin_version=2)
    text = sdp.build(description)
    assert "a=ice-lite" in text
    assert "a=setup" not in text
    assert sdp.parse(text).sections[0].end_of_candidates
    assert sdp.parse(text).ice_lite
    assert sdp.parse(text).sections[0].codecs[0].parameters == {"a": "1"}

"""Descriptions that Chromium 156 wrote (``samples``), and made ones, fitted for aiortc."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.rtcconfiguration import RTCBundlePolicy

from metered_sync.engine.rooms.sdp_pins import Pins, arrange
from metered_sync.engine.webrtc.sdp_repair import (
    MAX_CANDIDATES,
    Sender,
    candidate_problem,
    is_usable_candidate,
    is_usable_codec,
    reject,
    repair,
    senders,
)
from metered_sync.wire import sdp
from metered_sync.wire.sdp import Codec, Description, Extension, Fingerprint, SdpError, Section

SAMPLES: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[1] / "rooms" / "samples" / "chromium.json").read_text()
)
OFFERS = [name for name in SAMPLES if name.endswith("offer")]
HOST = "1 1 udp 2122260223 192.0.2.1 50000 typ host generation 0"


def sample(name: str) -> Description:
    return sdp.parse("\r\n".join(SAMPLES[name]) + "\r\n")


def change(description: Description, mid: str, edit: Callable[[Section], Section]) -> Description:
    sections = (edit(s) if s.mid == mid else s for s in description.sections)
    return replace(description, sections=tuple(sections))


def made(*sections: Section, bundle: tuple[str, ...] = ()) -> Description:
    common = {
        "ice_ufrag": "abcd",
        "ice_pwd": "p" * 22,
        "fingerprints": (Fingerprint("sha-256", ":".join(["AB"] * 32)),),
        "setup": "actpass",
        "rtcp_mux": True,
    }
    full = tuple(replace(s, **common) for s in sections)  # type: ignore[arg-type]
    return Description(full, bundle or tuple(s.mid for s in sections))


VP8 = Codec(96, "VP8", 90000)
OPUS = Codec(111, "opus", 48000, 2)


def answer(offer: str) -> str:
    """Return what aiortc answers."""

    async def run() -> str:
        pc = RTCPeerConnection(RTCConfiguration([], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        try:
            await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            return (await pc.createAnswer()).sdp
        finally:
            await pc.close()

    return asyncio.run(run())


@pytest.mark.parametrize("name", OFFERS)
def test_aiortc_answers_what_was_repaired(name: str) -> None:
    offer = sample(name)
    repaired = repair(offer)
    reply = reject(sdp.parse(answer(sdp.build(repaired.description))), repaired.rejected)
    assert [(s.kind, s.mid) for s in reply.sections] == [(s.kind, s.mid) for s in offer.sections]
    active = [s.mid for s in reply.sections if not s.rejected]
    assert sorted(reply.bundle) == sorted(active)
    assert {s.mid for s in offer.sections if s.rejected} <= repaired.rejected


def test_what_is_rejected_in_the_samples() -> None:
    rejected = {name: set(repair(sample(name)).rejected) for name in OFFERS}
    assert rejected == {
        "four tracks, offer": set(),
        "stopped, offer": {"2"},
        "recycled, offer": set(),
        "removed, offer": set(),
        "restart, offer": set(),
        "av1 only, offer": {"0"},
        "data then audio, offer": set(),
    }


def test_the_rejected_section_of_an_answer_repeats_the_offers() -> None:
    offer = sample("av1 only, offer")
    repaired = repair(offer)
    reply = sdp.parse(answer(sdp.build(repaired.description)))
    text = sdp.build(reject(reply, repaired.rejected, offer.sections))
    assert "m=video 0 UDP/TLS/RTP/SAVPF 45\r\n" in text
    assert "a=group:BUNDLE 1\r\n" in text


@pytest.mark.parametrize(
    "without",
    [
        {"ice_ufrag": "", "ice_pwd": ""},
        {"fingerprints": (), "setup": ""},
        {"rtcp_mux": False},
        {"codecs": (), "formats": ("0",)},
    ],
)
def test_a_stopped_section_may_lack_anything(without: dict[str, object]) -> None:
    offer = change(
        sample("stopped, offer"),
        "2",
        lambda s: replace(s, **without),  # type: ignore[arg-type]
    )
    assert answer(sdp.build(repair(offer).description))


def test_the_first_section_stopped() -> None:
    offer = sample("four tracks, offer")
    stopped = change(offer, "0", lambda s: Section(s.kind, s.mid, port=0, formats=s.formats))
    stopped = replace(stopped, bundle=("1", "2", "3"))
    repaired = repair(stopped)
    assert repaired.rejected == {"0"}
    assert repaired.description.bundle == ("1", "0", "2", "3")
    assert repaired.tagged == ("1", 1)
    assert repaired.original == stopped
    ufrags = {s.ice_ufrag for s in repaired.description.sections}
    assert ufrags == {offer.sections[1].ice_ufrag}
    assert answer(sdp.build(repaired.description))


def test_a_rejected_answer() -> None:
    offer = made(Section("audio", "0", codecs=(OPUS,)), Section("video", "1", codecs=(VP8,)))
    given = change(offer, "1", lambda s: Section("video", "1", port=0, formats=("96",)))
    given = replace(given, bundle=("0",))
    given = change(given, "0", lambda s: replace(s, setup="active"))
    repaired = repair(given)
    assert repaired.rejected == {"1"}
    assert [s.setup for s in repaired.description.sections] == ["active", "active"]
    assert [s.direction for s in repaired.description.sections] == ["sendrecv", "inactive"]


def test_sections_on_a_transport_of_their_own_are_rejected() -> None:
    offer = made(
        Section("audio", "a", codecs=(OPUS,)),
        Section("video", "v", codecs=(VP8,)),
        Section("text", "t", formats=("98",)),
        bundle=("a",),
    )
    repaired = repair(offer)
    assert repaired.rejected == {"v", "t"}
    assert [s.kind for s in repaired.description.sections] == ["audio", "video", "audio"]
    reply = reject(repaired.description, repaired.rejected, offer.sections)
    assert [(s.kind, s.port) for s in reply.sections] == [("audio", 9), ("video", 0), ("text", 0)]
    assert reply.sections[2].formats == ("98",)
    unbundled = repair(replace(offer, bundle=()))
    assert unbundled.rejected == {"v", "t"}


def test_bundled_sections_have_the_transport_of_the_tagged_one() -> None:
    other = "2 1 udp 2122260223 192.0.2.2 50002 typ host generation 0"
    offer = made(Section("audio", "0", codecs=(OPUS,)), Section("video", "1", codecs=(VP8,)))
    offer = change(offer, "0", lambda s: replace(s, candidates=(HOST,), ice_ufrag="zero"))
    offer = change(offer, "1", lambda s: replace(s, candidates=(other,), ice_ufrag="one"))
    for section in repair(offer).description.sections:
        assert (section.ice_ufrag, section.candidates) == ("zero", (HOST,))
    # bundle-only: port 0, and nothing of a transport
    bare = change(
        offer,
        "1",
        lambda s: Section("video", "1", port=0, codecs=(VP8,), rtcp_mux=True, bundle_only=True),
    )
    repaired = repair(bare)
    assert repaired.rejected == set()
    assert repaired.description.sections[1].ice_ufrag == "zero"


def test_candidates_are_bounded_and_checked() -> None:
    many = tuple(HOST.replace("50000", str(1024 + i)) for i in range(MAX_CANDIDATES + 50))
    bad = ("1 1 udp 1 example.org 5 typ host", "nonsense")
    offer = made(Section("audio", "0", codecs=(OPUS,), candidates=bad + many))
    assert repair(offer).description.sections[0].candidates == many[:MAX_CANDIDATES]


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (HOST, True),
        ("1 1 UDP 2122260223 ::1 50000 typ host", True),
        ("1 1 udp 1 5a3c0d1e-0000-4000-8000-000000000000.local 5 typ host", True),
        (HOST.replace(" udp ", " tcp "), False),
        (HOST.replace("1 1 udp", "1 2 udp"), False),
        (HOST.replace("192.0.2.1", "example.org"), False),
        (HOST.replace("50000", "0"), False),
        (HOST.replace("50000", "70000"), False),
        (HOST.replace("50000", "x"), False),
        (HOST.replace("2122260223", "-1"), False),
        (HOST.replace("typ", "type"), False),
        (HOST + " lonely", False),
        (HOST + " x" * 1000, False),
        ("", False),
    ],
)
def test_usable_candidates(text: str, usable: bool) -> None:
    assert is_usable_candidate(text) is usable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HOST, None),
        (HOST.replace("192.0.2.1", "4f5d0c82-6a6b.local"), None),
        (HOST.replace("typ host", "typ prflx"), "its type is 'prflx'"),
        (HOST.replace("192.0.2.1", "host.example"), "'host.example' is not an address"),
        (HOST.replace("udp", "tcp"), None),  # browsers have such, too
        (HOST.replace("1 1 udp", "1 2 udp"), None),  # for RTCP
        (HOST.replace("192.0.2.1", "h" * 900), f"{'h' * 100!r} is not an address"),
        ("", None),
        ("nonsense", None),
        (HOST.replace("50000", "port"), None),
    ],
)
def test_well_formed_candidates_that_are_refused(text: str, problem: str | None) -> None:
    assert candidate_problem(text) == problem


@pytest.mark.parametrize(
    ("kind", "codec", "usable"),
    [
        ("audio", OPUS, True),
        ("audio", Codec(0, "PCMU", 8000), True),
        ("audio", replace(OPUS, payload_type=63), False),
        ("audio", Codec(110, "telephone-event", 48000), False),
        ("video", VP8, True),
        ("audio", VP8, False),
        ("video", Codec(98, "VP9", 90000), False),
        ("video", Codec(99, "H264", 90000, fmtp="packetization-mode=1"), True),
        ("video", Codec(99, "H264", 90000, fmtp="packetization-mode=0"), False),
        (
            "video",
            Codec(99, "h264", 90000, fmtp="packetization-mode=1;profile-level-id=42001f"),
            True,
        ),
        (
            "video",
            Codec(99, "H264", 90000, fmtp="packetization-mode=1;profile-level-id=640c1f"),
            False,
        ),
        (
            "video",
            Codec(99, "H264", 90000, fmtp="packetization-mode=1;profile-level-id=4200zz"),
            False,
        ),
    ],
)
def test_usable_codecs(kind: str, codec: Codec, usable: bool) -> None:
    assert is_usable_codec(kind, codec) is usable


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        (Description(()), "0 sections"),
        (made(*[Section("audio", str(i), codecs=(OPUS,)) for i in range(129)]), "129 sections"),
        (made(Section("audio", "", codecs=(OPUS,))), "no mids"),
        (made(Section("audio", "0"), Section("audio", "0")), "no mids"),
        (Description((Section("audio", "0", port=0),)), "parameters of a transport"),
    ],
)
def test_beyond_repair(description: Description, problem: str) -> None:
    with pytest.raises(SdpError, match=problem):
        repair(description)


def test_senders() -> None:
    stream = "c2ef6ea9-91b8-47b6-9c4d-38262ba341e1"
    before, after = senders(sample("recycled, offer")), senders(sample("removed, offer"))
    assert before["0"] == Sender("audio", stream, "39449864-4696-4b33-a5e0-c5bb6a140411")
    assert list(before) == ["0", "1", "4", "3"]
    assert list(after) == ["1", "4", "3"]  # though the a=msid line of "0" is still there
    assert list(senders(sample("stopped, offer"))) == ["0", "1", "3"]
    streamless = senders(sample("av1 only, offer"))
    assert streamless["1"] == Sender("audio", None, "a277b045-b85c-4278-9322-705446ac7406")
    assert senders(made(Section("audio", "0"))) == {"0": Sender("audio", None, None)}


def test_senders_before_rfc_8830() -> None:
    text = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    text += "a=mid:0\r\na=ssrc:5 cname:c\r\na=ssrc:5 msid:stream track\r\n"
    assert senders(sdp.parse(text)) == {"0": Sender("audio", "stream", "track")}


def test_the_fragment_tells_a_restart() -> None:
    fragments = {name: repair(sample(name)).fragment for name in OFFERS}
    assert fragments["stopped, offer"] == fragments["removed, offer"] != ""
    assert fragments["restart, offer"] != fragments["removed, offer"]


# --- pins ------------------------------------------------------------------------------

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
OURS = made(
    Section(
        "audio",
        "0",
        codecs=(Codec(96, "opus", 48000, 2), Codec(0, "PCMU", 8000)),
        extensions=(Extension(1, MID), Extension(2, "urn:ours")),
    ),
    Section(
        "video",
        "1",
        codecs=(
            Codec(97, "VP8", 90000),
            Codec(98, "rtx", 90000, fmtp="apt=97"),
            Codec(99, "H264", 90000, fmtp="packetization-mode=1;profile-level-id=42001f"),
            Codec(100, "rtx", 90000, fmtp="apt=99"),
        ),
        extensions=(Extension(1, MID), Extension(3, SEND_TIME)),
    ),
)


def test_what_is_offered_unasked_clashes_with_nobodys_numbers() -> None:
    (ours,) = (e for s in Pins().apply(OURS).sections for e in s.extensions)
    assert ours.uri == SEND_TIME
    browser = (e.id for s in sample("four tracks, offer").sections for e in s.extensions)
    native = (e.id for extensions in HEADER_EXTENSIONS.values() for e in extensions)
    assert ours.id not in {*browser, *native}


def test_an_offer_keeps_the_numbers_of_a_browser() -> None:
    pins = Pins()
    browser = sample("four tracks, offer")
    pins.learn(browser)
    offer = pins.apply(OURS)
    audio, video = offer.sections
    theirs = {e.uri: e.id for s in browser.sections for e in s.extensions}
    assert audio.extensions == (Extension(theirs[MID], MID),)
    assert video.extensions == (
        Extension(theirs[MID], MID),
        Extension(theirs[SEND_TIME], SEND_TIME),
    )
    types = {(c.name.lower(), c.fmtp): c.payload_type for s in browser.sections for c in s.codecs}
    assert [c.payload_type for c in audio.codecs] == [
        types["opus", "minptime=10;useinbandfec=1"],
        0,
    ]
    vp8 = types["vp8", ""]
    assert video.codecs[0].payload_type == vp8
    assert video.codecs[1].payload_type == types["rtx", f"apt={vp8}"]
    assert video.codecs[1].fmtp == f"apt={vp8}"
    h264 = video.codecs[2].payload_type
    assert video.codecs[3].payload_type == types["rtx", f"apt={h264}"]


def test_what_a_first_offer_has() -> None:
    offer = Pins().apply(OURS)
    assert [s.codecs for s in offer.sections] == [s.codecs for s in OURS.sections]
    assert [s.extensions for s in offer.sections] == [(), (Extension(12, SEND_TIME),)]


def test_a_codec_that_finds_no_number_is_left_out() -> None:
    pins = Pins()
    codecs = tuple(Codec(number, f"x{number}", 90000) for number in range(96, 128))
    pins.learn(made(Section("video", "0", codecs=codecs)))
    offer = pins.apply(OURS)
    assert [c.name for s in offer.sections for c in s.codecs] == ["PCMU"]


def test_a_codec_whose_number_is_taken_gets_another() -> None:
    pins = Pins()
    pins.learn(made(Section("video", "0", codecs=(Codec(96, "x", 90000), Codec(98, "y", 90000)))))
    audio, video = pins.apply(OURS).sections
    assert [c.payload_type for c in audio.codecs] == [97, 0]
    assert len({c.payload_type for c in (*audio.codecs, *video.codecs)}) == 6
    assert video.codecs[1].fmtp == f"apt={video.codecs[0].payload_type}"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("VP9", "", "profile-id=2"),
        ("VP9", "profile-id=0", "profile-id=1"),
        ("AV1", "level-idx=5;profile=0;tier=0", "level-idx=5;profile=1;tier=0"),
        ("H265", "level-id=180;profile-id=1", "level-id=180;profile-id=2"),
        ("H264", "profile-level-id=42001f", "profile-level-id=42001f;packetization-mode=1"),
        ("H264", "profile-level-id=42001f", "profile-level-id=64001f"),
    ],
)
def test_profiles_of_a_codec_are_told_apart(name: str, first: str, second: str) -> None:
    """Each has a number, with one for what is sent again, which nothing else gets."""
    theirs = (
        Codec(97, name, 90000, 1, first),
        Codec(98, "rtx", 90000, 1, "apt=97"),
        Codec(99, name, 90000, 1, second),
        Codec(100, "rtx", 90000, 1, "apt=99"),
    )
    pins = Pins()
    pins.learn(made(Section("video", "0", codecs=theirs)))
    # In another order, with other numbers.
    numbers = {97: 120, 98: 121, 99: 122, 100: 123}
    ours = tuple(
        replace(c, payload_type=numbers[c.payload_type], fmtp=c.fmtp.replace("=97", "=120"))
        for c in theirs[:2]
    )
    more = (Codec(99, "VP8", 90000), Codec(97, "rtx", 90000, 1, "apt=99"))
    (section,) = pins.apply(made(Section("video", "0", codecs=(*more, *ours)))).sections
    got = [(c.name, c.payload_type, c.parameters.get("apt")) for c in section.codecs]
    assert {number for _, number, _ in got[:2]}.isdisjoint({97, 98, 99, 100})
    assert got[2:] == [(name, 97, None), ("rtx", 98, "97")]


def test_the_latest_meaning_of_a_number_counts() -> None:
    pins = Pins()
    pins.learn(made(Section("audio", "0", extensions=(Extension(12, MID),))))
    pins.learn(made(Section("audio", "0", extensions=(Extension(12, "urn:x"), Extension(6, MID)))))
    pins.learn(Description((Section("audio", "1", port=0, extensions=(Extension(7, MID),)),)))
    offer = pins.apply(OURS)
    assert [[e.id for e in s.extensions] for s in offer.sections] == [[6], [6]]


def test_sections_are_arranged_as_they_were() -> None:
    offer = arrange(OURS, (1, 0), ("a", "b"))
    assert [(s.kind, s.mid) for s in offer.sections] == [("video", "a"), ("audio", "b")]
    assert offer.bundle == ("a", "b")

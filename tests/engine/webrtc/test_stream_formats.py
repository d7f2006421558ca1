"""Describe media that is encoded already: one codec, with the profile of the stream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metered_sync.engine.webrtc.sdp_repair import misfit, repair, unfit_tracks
from metered_sync.engine.webrtc.stream_formats import (
    PLAIN_PROFILE,
    StreamFormat,
    admit,
    is_plain_h264,
    offer_only,
    restore_profiles,
)
from metered_sync.wire.sdp import Codec, Description, Fingerprint, Section

RTX = Codec(98, "rtx", 90000, 1, "apt=97")
VP8 = Codec(97, "VP8", 90000)


def h264(payload_type: int, profile: str, mode: int = 1) -> Codec:
    fmtp = f"packetization-mode={mode};profile-level-id={profile}"
    return Codec(payload_type, "H264", 90000, 1, fmtp)


def rtx(payload_type: int) -> Codec:
    return Codec(payload_type + 1, "rtx", 90000, 1, f"apt={payload_type}")


def section(*codecs: Codec, mid: str = "0") -> Section:
    return Section(
        "video",
        mid,
        codecs=codecs,
        rtcp_mux=True,
        ice_ufrag="abcd",
        ice_pwd="p" * 22,
        fingerprints=(Fingerprint("sha-256", ":".join(["AB"] * 32)),),
        setup="actpass",
    )


def test_an_offer_has_the_one_codec_with_the_streams_profile() -> None:
    offered = section(VP8, RTX, h264(99, "42001f"), rtx(99), h264(101, "42e01f"), rtx(101))
    other = replace(offered, mid="1")
    high = StreamFormat("h264", "64001f")
    one, two = offer_only(Description((offered, other)), {"0": high}).sections
    assert two == other
    assert [codec.payload_type for codec in one.codecs] == [99, 100]
    assert one.codecs[0].parameters == {
        "level-asymmetry-allowed": "1",
        "packetization-mode": "1",
        "profile-level-id": "64001f",
    }
    vp8 = offer_only(Description((offered,)), {"0": StreamFormat("vp8")}).sections[0]
    assert vp8.codecs == (VP8, RTX)


@pytest.mark.parametrize("profile", ["42c01f", "4d401f", "640032", "64001f"])
def test_its_answer_is_one_that_aiortc_takes(profile: str) -> None:
    answer = section(h264(99, profile), rtx(99))
    admitted = admit(answer, StreamFormat("h264", profile))
    assert is_plain_h264(admitted.codecs[0])
    assert [codec.payload_type for codec in admitted.codecs] == [99, 100]


def test_an_offer_is_answered_with_the_profile_that_is_sent() -> None:
    """Also where the other side describes the section anew, with all that it knows."""
    offered = section(VP8, RTX, h264(99, "42001f"), h264(103, "4d001f"), h264(105, "64001f"))
    admitted = admit(offered, StreamFormat("h264", "64001f"))
    assert [codec.payload_type for codec in admitted.codecs] == [105]
    assert is_plain_h264(admitted.codecs[0])
    answer = restore_profiles(Description((admitted,)), Description((offered,)))
    assert answer.sections[0].codecs == (h264(105, "64001f"),)
    lacking = section(VP8, RTX)
    assert admit(lacking, StreamFormat("h264", "64001f")) == lacking


def test_what_others_send_is_received_in_any_profile() -> None:
    for codecs in ([h264(105, "64001f")], [h264(105, "64001f"), VP8, h264(99, "42e01f")]):
        offered = section(*codecs)
        assert misfit(offered, first=True) is None
        assert not unfit_tracks(Description((replace(offered, direction="sendonly"),)))
        repaired = repair(Description((offered,), ("0",)))
        assert not repaired.rejected
        assert repaired.original.sections[0] == offered
        first = repaired.description.sections[0].codecs[0]
        assert first.parameters["profile-level-id"] == PLAIN_PROFILE
        answer = restore_profiles(repaired.description, repaired.original)
        assert answer.sections[0].codecs[0] == codecs[0]
    # Where baseline is to be had, and comes first, aiortc is told of nothing else.
    usual = section(VP8, h264(99, "42e01f"), h264(105, "64001f"))
    assert admit(usual) == usual
    assert misfit(section(h264(99, "64001f", mode=0))) is not None

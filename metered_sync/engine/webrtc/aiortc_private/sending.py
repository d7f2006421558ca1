"""Reach into senders: their encoders and codecs, and the tracks that they read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import ENCODER

__all__ = [
    "before_first_frame",
    "discards",
    "encoder_of",
    "fills_a_queue",
    "first_codec",
    "name_stream",
    "on_key_frame_request",
    "plays_packets",
    "put_codec_first",
    "set_encoder",
]


def set_encoder(sender: RTCRtpSender, encoder: Any) -> None:
    """Have a sender encode, or pack, its frames with an encoder of ours."""
    if getattr(sender, ENCODER, None) is not encoder:
        setattr(sender, ENCODER, encoder)


def encoder_of(sender: RTCRtpSender) -> Any:
    """Return a sender's encoder; ``None`` before it has one."""
    return getattr(sender, ENCODER, None)


def before_first_frame(sender: RTCRtpSender, function: Callable[[str], None]) -> None:
    """Have a function called with the sender's codec before the sender fetches its next frame.

    The name is in lower case. A sender that sends keeps its codec, so it is called once.
    """

    async def first(codec: Any) -> Any:
        vars(sender).pop("_next_encoded_frame", None)
        function(codec.name.lower())
        return await sender._next_encoded_frame(codec)

    setattr(sender, "_next_encoded_frame", first)  # noqa: B010 - on this one only


def on_key_frame_request(sender: RTCRtpSender, function: Callable[[], None]) -> None:
    """Have a function called when the receiver asks for a key frame, in aiortc's place."""
    setattr(sender, "_send_keyframe", function)  # noqa: B010 - on this one only


def discards(sender: RTCRtpSender | None) -> bool:
    """Say whether a sender throws away its frames: it may not send, by what was negotiated."""
    return not getattr(sender, "_enabled", True)


def name_stream(sender: RTCRtpSender, stream_id: str) -> None:
    """Name the stream that a sender's track belongs to, as from the next description on."""
    if can(Capability.STREAMS):
        sender._stream_id = stream_id


def first_codec(transceiver: RTCRtpTransceiver) -> str:
    """Return the codec that is sent with, once negotiated, in lower case; or an empty text."""
    codecs = getattr(transceiver, "_codecs", ())
    return str(codecs[0].name).lower() if codecs else ""


def put_codec_first(transceiver: RTCRtpTransceiver, codec: str | None) -> None:
    """Send with a codec, if an offer has it. (Preferences count before an offer is taken.)"""
    codecs = getattr(transceiver, "_codecs", None)
    if codec is not None and codecs:
        codecs.sort(key=lambda one: one.name.lower() != codec)


def fills_a_queue(track: MediaStreamTrack) -> bool:
    """Say whether a track goes on filling a queue of its own while nobody reads it."""
    return isinstance(getattr(track, "_queue", None), asyncio.Queue)


def plays_packets(track: MediaStreamTrack) -> bool:
    """Say whether a track, perhaps through relays, is one of a player that does not decode."""
    source: Any = track
    for _ in range(8):
        player = getattr(source, "_player", None)
        if player is not None:
            return getattr(player, "_MediaPlayer__decode", True) is False
        source = getattr(source, "_source", None)
    return False

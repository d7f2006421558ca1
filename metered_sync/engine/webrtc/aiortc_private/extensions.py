"""Read header extensions of packets that aiortc does not know."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import aiortc
from aiortc import RTCPeerConnection

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import EXTENSIONS_MAP

__all__ = ["extensions_of", "read_extensions"]

ONE_BYTE_HEADERS = 0xBEDE
"""Marks header extensions with a number and a length in a byte (RFC 8285, section 4.2)."""


class _ExtensionsMap:
    """A transport's reader of header extensions, which reads further ones."""

    def __init__(self, inner: Any) -> None:
        self.uris: dict[int, str] = {}
        """The extensions to be read, by their numbers."""
        self._inner = inner

    def configure(self, parameters: Any) -> None:
        """Take over numbers, as the transport's own reader does."""
        self._inner.configure(parameters)

    def get(self, profile: int, value: bytes) -> Any:
        """Return the values of a packet's extensions, with ours among them."""
        values = self._inner.get(profile, value)
        if _may_have(profile, value, self.uris):
            values.further = {
                self.uris[number]: data
                for number, data in aiortc.rtp.unpack_header_extensions(profile, value)
                if number in self.uris
            }
        return values


def _may_have(profile: int, value: bytes, numbers: Container[int]) -> bool:
    """Return false where a packet has no extension of these numbers: most have none."""
    if profile != ONE_BYTE_HEADERS:
        return bool(value)
    at = 0
    while at < len(value):
        head = value[at]
        if head >> 4 in numbers:
            return True
        at += (head & 15) + 2 if head else 1  # zeros fill up
    return False


def read_extensions(pc: RTCPeerConnection, uris: dict[int, str]) -> None:
    """Have a connection's receivers read header extensions that aiortc does not know."""
    if not can(Capability.EXTENSIONS):
        return
    for transceiver in pc.getTransceivers():
        transport = transceiver.receiver.transport
        reader = getattr(transport, EXTENSIONS_MAP)
        if not isinstance(reader, _ExtensionsMap):
            reader = _ExtensionsMap(reader)
            setattr(transport, EXTENSIONS_MAP, reader)
        reader.uris = uris


def extensions_of(packet: Any) -> dict[str, bytes]:
    """Return the values of a packet's extensions that aiortc does not know, by URI."""
    values: dict[str, bytes] = getattr(packet.extensions, "further", {})
    return values

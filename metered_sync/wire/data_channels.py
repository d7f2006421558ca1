"""Check the options and the messages of data channels (RFC 8831, RFC 8832).

Source: docs/protocol/rooms.md#data-channels.
"""

from __future__ import annotations

from typing import Any

from metered_sync.wire.arguments import check_number, check_whole, shown

__all__ = ["DEFAULT_CAP", "channel_options", "check_label", "measure"]

DEFAULT_CAP = 65536
"""The largest message, in bytes, that a peer takes which says nothing (RFC 8841, section 6.1)."""


def check_label(text: str, name: str = "label") -> str:
    """Return a channel's label, or its ``protocol``, if that can be sent."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, not {type(text).__name__}")
    # aiortc (1.14 to 1.16) writes a length in characters where the far side reads bytes, and
    # fails there: with the whole connection where the far side is aiortc, too.
    if not text.isascii() or len(text) > 65535:
        raise ValueError(f"{name} must be ASCII, at most 65,535 characters; not {shown(text[:40])}")
    return text


def channel_options(
    *,
    ordered: bool = True,
    max_retransmits: int | None = None,
    max_packet_life_time: float | None = None,
    protocol: str = "",
) -> dict[str, Any]:
    """Check a new channel's options; return them as aiortc's ``createDataChannel`` has them.

    Args:
        ordered: Whether messages arrive in the order in which they were sent.
        max_retransmits: How often a lost message is sent again; ``None``: until it arrives.
        max_packet_life_time: For how many seconds a lost message is sent again, instead.
        protocol: The name of what is spoken on the channel, for the far side.
    """
    options: dict[str, Any] = {
        "ordered": bool(ordered),
        "protocol": check_label(protocol, "protocol"),
    }
    if max_retransmits is not None and max_packet_life_time is not None:
        raise ValueError("a channel takes max_retransmits or max_packet_life_time, not both")
    if max_retransmits is not None:
        options["maxRetransmits"] = check_whole("max_retransmits", max_retransmits, most=65535)
    if max_packet_life_time is not None:
        seconds = check_number(
            "max_packet_life_time", max_packet_life_time, 0.001, 65.535, unit="seconds"
        )
        options["maxPacketLifeTime"] = round(seconds * 1000)
    return options


def measure(data: object) -> int:
    """Return a message's size in bytes; raise for what cannot be sent as one."""
    if isinstance(data, str):
        try:
            return len(data) if data.isascii() else len(data.encode())
        except UnicodeEncodeError:
            raise ValueError(
                "a data channel sends text as UTF-8, and this has a lone surrogate: send "
                '.encode("utf-8", "surrogatepass"), as bytes'
            ) from None
    if isinstance(data, bytes):
        return len(data)
    remedy = ""
    if hasattr(data, "tobytes"):
        remedy = ": send .tobytes()"
    elif isinstance(data, (dict, list, tuple, int, float, bool, type(None))):
        remedy = ": send json.dumps(…)"
    raise TypeError(f"a data channel sends str or bytes, not {type(data).__name__}{remedy}")

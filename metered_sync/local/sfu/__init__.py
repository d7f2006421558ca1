"""Forward media without decoding it, behind the HTTP API of the Global SFU.

From a request to a packet: ``server`` holds everything together, ``api`` are the HTTP calls,
``session`` negotiates (``checks`` reads what clients send, ``slots`` are the media sections,
``codecs`` their rules),
``transport`` is the UDP socket (``stun`` and ``dtls`` its protocols), ``routing`` leads
packets to tracks and ``forward`` sends them on (``rtp``, ``rtcp`` and ``reception`` are its
tools).
"""

from metered_sync.local.sfu.server import Sfu

__all__ = ["Sfu"]

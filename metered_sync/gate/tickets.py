"""Sign and check tickets: they bind an SFU session to the one who made it.

A ticket is the session's id with an expiry and a signature, and goes wherever the SFU's API takes
a session id. Any gate of the same app can check it: no state is shared between servers. It says
nothing that its bearer does not know, and is of no use with another's token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from metered_sync.wire.sfu import TICKET, plain_session_id

__all__ = ["Tickets"]

PURPOSE = b"metered_sync gate: tickets of sessions, version 1"
SIGNATURE_BYTES = 24


class Tickets:
    """The tickets of one app."""

    def __init__(self, secret: str) -> None:
        """Derive the key from the app's secret, which cannot be found from it."""
        key = hmac.new(secret.encode(), PURPOSE, hashlib.sha256).digest()

        def sign(text: str) -> str:  # (a closure: no attribute holds the key)
            code = hmac.new(key, text.encode(), hashlib.sha256).digest()[:SIGNATURE_BYTES]
            return base64.urlsafe_b64encode(code).decode()

        self._sign: Callable[[str], str] = sign

    def issue(self, session_id: str, peer_id: str, expires_at: float) -> str:
        """Return the session's id with its ticket, for the one who made it."""
        until = int(expires_at)
        return f"{session_id}~{until}~{self._sign(_text(session_id, peer_id, until))}"

    def expiry(self, ticketed: str, peer_id: str) -> float | None:
        """Return when the ticket of a session's id expires; ``None`` unless it is this peer's."""
        found = TICKET.search(ticketed)
        if found is None:
            return None
        until = int(found[1])
        signature = self._sign(_text(plain_session_id(ticketed), peer_id, until))
        return until if hmac.compare_digest(signature, found[2]) else None


def _text(session_id: str, peer_id: str, until: int) -> str:
    return f"{len(session_id)}:{session_id}:{len(peer_id)}:{peer_id}:{until}"

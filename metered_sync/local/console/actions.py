"""Do what a page asks for: disconnect a peer, inject a fault, forget the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from metered_sync.errors import MeteredError
from metered_sync.local.faults import Faults
from metered_sync.local.rest import Refusal
from metered_sync.local.servers import Servers
from metered_sync.wire.fields import FieldError, Fields
from metered_sync.wire.limits import CLOSE_ADMIN_DISCONNECT

__all__ = ["inject", "kick"]

FAULTS = (
    "drop_connections", "refuse_connections", "going_away", "close", "hold_acks", "delay",
    "kill_sfu_session", "lose_media",
)  # fmt: skip
"""The methods of :class:`Faults` that a page may call."""


def kick(servers: Servers, body: Any) -> dict[str, Any]:
    """Close the connections of a peer, as the control plane does."""
    peer_id = Fields(body).filled("peer")
    sockets = servers.signalling.broker.sockets(peer_id)
    for socket in sockets:
        servers.signalling.shut(socket, CLOSE_ADMIN_DISCONNECT, "disconnected by the console")
    return {"closed": len(sockets)}


async def inject(servers: Servers, body: Any) -> dict[str, Any]:
    """Inject the fault ``name`` with ``arguments``, as :class:`Faults` has them."""
    fields = Fields(body)
    name, arguments = fields.filled("name"), fields.optional_object("arguments") or {}
    if name not in FAULTS:
        raise Refusal(404, "not_found", f"there is no fault {name!r}")
    found: list[Callable[[Servers], Awaitable[None]]] = []
    faults = Faults(lambda _what, _timeout, function: found.append(function))
    try:
        getattr(faults, name)(**arguments)  # checks its arguments, and hands over what to run
        await found[0](servers)
    except (MeteredError, TypeError, ValueError) as error:
        raise FieldError(str(error)) from None
    return {}

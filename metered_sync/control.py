"""Manage an app's connections from a server: the control plane's REST calls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from metered_sync._rest import RestClient
from metered_sync.engine.network.certificates import check_ca_file
from metered_sync.engine.rest import Rest, Service
from metered_sync.errors import ControlPlaneError, OversizedPayloadError
from metered_sync.tokens import as_patterns, as_texts, check_ttl
from metered_sync.wire import control as wire
from metered_sync.wire.control import Plan, Token, Usage
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import MAX_REST_BODY, MAX_TOKEN_TTL
from metered_sync.wire.names import check_one_channel, check_peer_id, utf8_size
from metered_sync.wire.secrets import check_key_pair, hides_arguments
from metered_sync.wire.urls import check_origin

__all__ = ["ControlPlane", "Plan", "Token", "Usage"]

CONTROL_PLANE_URL = "https://rms.metered.ca"
"""The origin of the service's control plane."""


class ControlPlane(RestClient):
    """Realtime Messaging over REST: make tokens, list peers, publish, disconnect, read usage.

    For servers: the secret lets its holder act as anybody. There is no connection to open.
    One object serves all threads of a process, and may be made before it forks;
    :meth:`close`, or ``with``, gives back its idle connections.

    A call that fails for want of an answer, or with 429 or 5xx, is tried again within its
    deadline where that does no harm. :meth:`publish` is tried again only where the request
    never left.

    Args:
        key_id: The public id of a secret key (``sk_id_…``); ``METERED_KEY_ID`` in the
            environment.
        secret: Its secret (``sk_secret_…``); ``METERED_KEY_SECRET``.
        url: The service's origin, ``https://host`` (``http://`` for loopback hosts only);
            the host of ``METERED_URL``.
        timeout: Seconds that a call may take, unless it says otherwise.
        ca_file: A file of certificates (PEM) to be trusted, as for
            :class:`~metered_sync.SignallingClient`.

    Raises:
        ValueError: A key is missing, or is of another kind.
    """

    @hides_arguments
    def __init__(
        self,
        key_id: str | None = None,
        secret: str | None = None,
        *,
        url: str | None = None,
        timeout: float = 15.0,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        names = (
            "METERED_KEY_ID" if key_id is None else "key_id",
            "METERED_KEY_SECRET" if secret is None else "secret",
        )
        key_id = key_id if key_id is not None else os.environ.get("METERED_KEY_ID")
        secret = secret if secret is not None else os.environ.get("METERED_KEY_SECRET")
        try:
            if key_id is None or secret is None:
                raise ValueError(
                    "ControlPlane needs key_id (sk_id_…) and secret (sk_secret_…), or "
                    "METERED_KEY_ID and METERED_KEY_SECRET in the environment"
                )
            check_key_pair("ControlPlane", key_id, secret, names)
            super().__init__("ControlPlane", timeout)
            given = url is not None
            self._origin = check_origin(
                url if url is not None else _default_url(),
                secure="https",
                name="url" if given else "METERED_URL",
            )
            self._key_id = key_id
            trusted = check_ca_file(ca_file)
            self._rest = Rest(_service(self._origin, key_id), f"{key_id}:{secret}", ca_file=trusted)
        finally:
            del key_id, secret  # no frame of a traceback shows them

    _key_id = "…"

    def __repr__(self) -> str:
        return f"<ControlPlane {self._origin}, key {self._key_id}>"

    def close(self) -> None:
        """Close idle connections. Calls under way go on to their end. Repeatable."""
        super().close()
        self._rest.close()

    @hides_arguments
    def mint_token(
        self,
        *,
        peer_id: str,
        channels: Iterable[str] | None = None,
        permissions: Iterable[str] | None = None,
        ttl: float = 3600,
        metadata: dict[str, Any] | None = None,
        peer_metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Token:
        """Have the service sign a token that lets one peer connect.

        :func:`~metered_sync.mint_token` makes an equal one without asking; the service
        checks besides, at once, that the key covers what the token grants.

        Args:
            peer_id: Who the bearer will be: 1 to 128 characters of printable ASCII.
            channels: Channel names or patterns (``*``, ``**``); at most 100, and within the
                key's own patterns. ``None`` grants all that the key has.
            permissions: Out of ``publish``, ``subscribe``, ``presence``, ``send``.
                ``None`` grants all that the key has. WebRTC needs ``send``.
            ttl: Seconds until the token expires: 1 to 86,400. Fractions are cut off.
            metadata: Handed to the bearer alone on connecting; at most 8 KB as JSON.
            peer_metadata: Shown to other peers; at most 4 KB as JSON.

        Returns:
            The token and when it expires, in unix seconds.

        Raises:
            ValueError: A cap of the service is exceeded; nothing was sent.
            OversizedPayloadError: All of it together is more than 32 KB.
            ControlPlaneError: Refused, or no answer; ``status`` and ``code`` say why.
            MeteredTimeoutError: No answer before the deadline.
        """
        request = wire.TokenRequest(
            peer_id,
            as_patterns(channels),
            as_texts("permissions", permissions),
            int(check_ttl(ttl, 1, MAX_TOKEN_TTL)),
            metadata,
            peer_metadata,
        )
        request.claims(time.time())
        what = f"mint a token for {peer_id!r}"
        return self._ask(
            self._rest,
            "POST",
            wire.TOKENS,
            Token.parse,
            what=what,
            timeout=timeout,
            body=_measured(request.body(), what),
            safe=True,  # a token too many does no harm
            needs="a permission that the token is to grant",
        )

    def peers(
        self, channel: str, *, timeout: float | None = None
    ) -> dict[str, dict[str, Any] | None]:
        """Return the subscribers of a channel: peer ids, with metadata where they have it.

        The key needs the ``presence`` permission. Errors as :meth:`mint_token`.
        """
        return self._ask(
            self._rest,
            "GET",
            wire.peers_path(check_one_channel(channel, "peers")),
            wire.parse_peers,
            what=f"list the peers of {channel!r}",
            timeout=timeout,
            safe=True,
            needs='the permission "presence"',
        )

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        sender: str = "system",
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Publish to a channel's subscribers without being connected.

        The key needs the ``publish`` permission. For many messages, a
        :class:`~metered_sync.SignallingClient` is much faster.

        Args:
            channel: 1 to 256 bytes of UTF-8.
            data: Anything that JSON can carry; with everything around it at most 32 KB.
            sender: Who subscribers are told it is from.
            metadata: Shown to subscribers that ask for the sender's metadata; at most 4 KB.
            timeout: Seconds; ``None`` is the object's default.

        Raises:
            ControlPlaneError: Refused, or no answer; unless ``sent``, it may be repeated.
            OversizedPayloadError: More than 32 KB; nothing was sent. (A ``SignallingClient``
                takes 64.)
            MeteredTimeoutError: No answer before the deadline; it may have been published.
            TypeError, ValueError: The data is not JSON, or another bad argument.
        """
        encode(data)  # (whose errors are about it alone)
        request = wire.MessageRequest(data, sender, metadata).check()
        what = f"publish to {check_one_channel(channel, 'publish')!r}"
        self._ask(
            self._rest,
            "POST",
            wire.publish_path(channel),
            lambda _: None,  # the answer is not documented
            what=what,
            timeout=timeout,
            body=_measured(request.body(), what),
            needs='the permission "publish"',
        )

    def disconnect(self, peer_id: str, *, timeout: float | None = None) -> int:
        """Close all connections of a peer; return how many there were, which may be 0.

        Their clients see close code 4020 and do not reconnect by themselves. The peer's
        tokens stay valid until they expire. Where an answer was lost and the call tried
        again, it returns what the last attempt closed. Errors as :meth:`mint_token`.
        """
        return self._ask(
            self._rest,
            "DELETE",
            wire.peer_path(check_peer_id(peer_id)),
            wire.parse_disconnected,
            what=f"disconnect {peer_id!r}",
            timeout=timeout,
            safe=True,
        )

    def usage(self, *, timeout: float | None = None) -> Usage:
        """Return the app's usage in this period, and its plan.

        Errors as :meth:`mint_token`.
        """
        return self._ask(
            self._rest, "GET", wire.USAGE, Usage.parse, what="usage", timeout=timeout, safe=True
        )


def _service(origin: str, key_id: str) -> Service:
    """Return the control plane as the holder of a key sees it."""
    return Service(
        "ControlPlane",
        origin,
        ControlPlaneError,
        remedies={
            401: f"the service does not know the key {key_id} with this secret; check that both "
            "are of one pair, of this service, and not revoked",
            403: f"the key {key_id} may not do this; see its settings in the dashboard",
            "action_not_permitted": f"the key {key_id} lacks {{needs}}; grant it in the dashboard",
            "channel_not_authorized": f"the channel patterns of the key {key_id} do not cover it; "
            "extend them in the dashboard",
            "over_message_quota": "the plan's messages are used up; see usage()",
        },
        secret_answers=True,
    )


def _measured(body: dict[str, Any], what: str) -> dict[str, Any]:
    """Return a request's body if the service takes it: it measures the whole."""
    size = utf8_size(encode(body))
    if size > MAX_REST_BODY:
        raise OversizedPayloadError(
            f"ControlPlane: {what}: {size} bytes with everything around the data; REST takes "
            f"{MAX_REST_BODY}",
            size=size,
            cap=MAX_REST_BODY,
        )
    return body


def _default_url() -> str:
    """Return the origin of REST calls: that of the messaging, by another scheme."""
    url = os.environ.get("METERED_URL")
    if not url:
        return CONTROL_PLANE_URL
    return "http" + url[2:] if url.startswith(("ws:", "wss:")) else url

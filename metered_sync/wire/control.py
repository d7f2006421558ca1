"""Parse and build the bodies of the control plane's five calls.

The client and the local cloud share them. Each value has two directions:
``Value.parse(body)`` takes decoded JSON and raises :class:`~metered_sync.wire.fields.FieldError`,
``value.body()`` gives what goes into JSON. Source: docs/protocol/signalling.md#control-plane.

=========================================  =======================  =======================
call                                       request                  answer
=========================================  =======================  =======================
``POST /v1/tokens``                        :class:`TokenRequest`    :class:`Token`
``GET /v1/channels/{channel}/peers``       none                     :func:`parse_peers`
``POST /v1/channels/{channel}/publish``    :class:`MessageRequest`  not documented
``DELETE /v1/peers/{peer}``                none                     :func:`parse_disconnected`
``GET /v1/usage``                          none                     :class:`Usage`
=========================================  =======================  =======================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from metered_sync.wire.fields import FieldError, Fields, JsonObject
from metered_sync.wire.limits import DEFAULT_TOKEN_TTL, MAX_PEER_METADATA, MAX_TOKEN_TTL
from metered_sync.wire.names import peer_id_problem
from metered_sync.wire.tokens import Claims, check_claims, object_problem

__all__ = [
    "TOKENS",
    "USAGE",
    "Plan",
    "MessageRequest",
    "Token",
    "TokenRequest",
    "Usage",
    "disconnected_body",
    "parse_disconnected",
    "parse_peers",
    "peer_path",
    "peers_body",
    "peers_path",
    "publish_path",
]

TOKENS = "/v1/tokens"
"""The path of the call that makes a token."""
USAGE = "/v1/usage"
"""The path of the usage report."""


def peers_path(channel: str) -> str:
    """Return the path that lists a channel's peers."""
    return f"/v1/channels/{_segment(channel)}/peers"


def publish_path(channel: str) -> str:
    """Return the path that publishes to a channel."""
    return f"/v1/channels/{_segment(channel)}/publish"


def peer_path(peer_id: str) -> str:
    """Return the path of a peer, which ``DELETE`` disconnects."""
    return f"/v1/peers/{_segment(peer_id)}"


def _segment(name: str) -> str:
    if name in (".", ".."):  # RFC 3986, 5.2.4: taken out on the way, percent-encoded or not
        raise ValueError(f"{name!r} is a name that no URL can carry; it cannot be used over REST")
    return quote(name, safe="")


def _given(**fields: Any) -> JsonObject:
    """Return the fields whose value is not ``None``."""
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class TokenRequest:
    """The request for a token: whose it is to be, and what it grants."""

    peer_id: str
    channels: tuple[str, ...] | None = None
    """Names and patterns; ``None`` inherits the key's, ``()`` grants none."""
    permissions: tuple[str, ...] | None = None
    expires_in: int = DEFAULT_TOKEN_TTL
    """Seconds."""
    metadata: JsonObject | None = None
    peer_metadata: JsonObject | None = None

    def claims(self, now: float) -> Claims:
        """Return the claims of a token made now. ``ValueError`` where a cap is exceeded."""
        if not 1 <= self.expires_in <= MAX_TOKEN_TTL:
            raise ValueError(
                f"a token of the service lives 1 to {MAX_TOKEN_TTL} s, not {self.expires_in}"
            )
        return check_claims(
            Claims(
                self.peer_id,
                now + self.expires_in,
                self.channels,
                self.permissions,
                self.metadata,
                self.peer_metadata,
            )
        )

    @classmethod
    def parse(cls, body: object) -> TokenRequest:
        """Return the request that a decoded body makes, its caps checked."""
        fields = Fields(body)
        expires_in = fields.optional_whole("expiresInSec")
        request = cls(
            fields.text("peerId"),
            fields.optional_texts("channels"),
            fields.optional_texts("permissions"),
            DEFAULT_TOKEN_TTL if expires_in is None else expires_in,
            fields.optional_object("metadata"),
            fields.optional_object("peerMetadata"),
        )
        try:
            request.claims(0)
        except ValueError as error:
            raise FieldError(str(error)) from None
        return request

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return _given(
            peerId=self.peer_id,
            channels=None if self.channels is None else list(self.channels),
            permissions=None if self.permissions is None else list(self.permissions),
            expiresInSec=self.expires_in,
            metadata=self.metadata,
            peerMetadata=self.peer_metadata,
        )


@dataclass(frozen=True)
class Token:
    """A token that the service has signed. Its text is left out of ``repr``."""

    token: str = field(repr=False)
    """What a client connects with."""
    expires_at: float
    """Unix seconds."""

    @classmethod
    def parse(cls, body: object) -> Token:
        """Return the value of a decoded answer."""
        fields = Fields(body)
        return cls(fields.text("token"), fields.number("expiresAt"))

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return {"token": self.token, "expiresAt": int(self.expires_at)}


@dataclass(frozen=True)
class MessageRequest:
    """The request to publish a message to a channel without being connected."""

    data: Any
    sender: str = "system"
    metadata: JsonObject | None = None

    def check(self) -> MessageRequest:
        """Return the request if it may be sent; ``ValueError`` where a cap is exceeded."""
        problem = peer_id_problem(self.sender)
        if problem is not None:
            raise ValueError(f"the sender {problem}")
        problem = object_problem("metadata", self.metadata, MAX_PEER_METADATA)
        if problem is not None:
            raise ValueError(problem)
        return self

    @classmethod
    def parse(cls, body: object) -> MessageRequest:
        """Return the request that a decoded body makes, its caps checked."""
        fields = Fields(body)
        if "data" not in fields:
            raise fields.error("data", "is missing")
        sender = fields.optional_text("from")
        metadata = fields.optional_object("peerMetadata")
        request = cls(fields.get("data"), "system" if sender is None else sender, metadata)
        try:
            return request.check()
        except ValueError as error:
            raise FieldError(str(error)) from None

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return {"data": self.data, **_given(**{"from": self.sender, "peerMetadata": self.metadata})}


def parse_peers(body: object) -> dict[str, JsonObject | None]:
    """Return peer ids and metadata of the decoded list of a channel's peers."""
    return dict(Fields(body).each("peers", _peer))


def _peer(entry: Fields) -> tuple[str, JsonObject | None]:
    # As in presence, metadata that is not an object counts as absent.
    return entry.text("peerId"), entry.object_or_none("metadata")


def peers_body(channel: str, peers: Mapping[str, JsonObject | None]) -> JsonObject:
    """Return the list of a channel's peers for JSON."""
    entries = [_given(peerId=peer_id, metadata=metadata) for peer_id, metadata in peers.items()]
    return {"channel": channel, "peers": entries}


def parse_disconnected(body: object) -> int:
    """Return how many sockets a decoded answer says were closed."""
    return Fields(body).whole("closed")


def disconnected_body(peer_id: str, closed: int) -> JsonObject:
    """Return the answer to a disconnect for JSON."""
    return {"peerId": peer_id, "closed": closed}


@dataclass(frozen=True)
class Plan:
    """The app's plan: its limits and overages."""

    name: str | None
    max_concurrent_connections: int
    max_messages_per_period: int
    overages_allowed: bool
    """Whether the plan has overages."""
    overages_enabled: bool
    """Whether they are switched on."""

    @classmethod
    def read(cls, fields: Fields) -> Plan:
        """Return the plan that the fields of a usage report's ``plan`` describe."""
        return cls(
            fields.optional_text("name"),
            fields.whole("maxConcurrentConnections"),
            fields.whole("maxMessagesPerPeriod"),
            fields.flag("overagesAllowed"),
            fields.flag("overagesEnabled"),
        )

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return {
            "name": self.name,
            "maxConcurrentConnections": self.max_concurrent_connections,
            "maxMessagesPerPeriod": self.max_messages_per_period,
            "overagesAllowed": self.overages_allowed,
            "overagesEnabled": self.overages_enabled,
        }


@dataclass(frozen=True)
class Usage:
    """An app's usage of connections and messages in the current period."""

    app_id: str
    period_start_unix: int | None
    """When the period began, unix seconds; ``None`` where there is none."""
    period_end_unix: int | None
    concurrent_now: int
    """Connections that are open."""
    peak_concurrent: int
    """The most that were open at once in the period."""
    messages_used: int
    """Publishes and sends, those refused for want of quota included."""
    overage_messages: int
    """Messages beyond the plan; this and the next lag by up to a minute."""
    overage_connections: int
    plan: Plan

    @classmethod
    def parse(cls, body: object) -> Usage:
        """Return the value of a decoded answer."""
        fields = Fields(body)
        return cls(
            fields.text("appId"),
            fields.optional_whole("periodStartUnix"),
            fields.optional_whole("periodEndUnix"),
            fields.whole("concurrentNow"),
            fields.whole("peakConcurrent"),
            fields.whole("messagesUsed"),
            fields.whole("overageMessages"),
            fields.whole("overageConnections"),
            Plan.read(fields.object("plan")),
        )

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return {
            "appId": self.app_id,
            "periodStartUnix": self.period_start_unix,
            "periodEndUnix": self.period_end_unix,
            "concurrentNow": self.concurrent_now,
            "peakConcurrent": self.peak_concurrent,
            "messagesUsed": self.messages_used,
            "overageMessages": self.overage_messages,
            "overageConnections": self.overage_connections,
            "plan": self.plan.body(),
        }

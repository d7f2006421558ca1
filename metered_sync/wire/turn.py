"""Parse and build the bodies of the TURN service's calls, and lists of ICE servers.

The client and the local cloud share them. TURN is another product, on a host of its own;
its keys go into the query. Source: docs/protocol/signalling.md#turn-server-rest-api.

=======================================  ===========================  ==============================
call                                     request                      answer
=======================================  ===========================  ==============================
``GET`` :data:`ICE_SERVERS`              ``apiKey``, ``region``       :func:`parse_ice_server_list`
``POST`` :data:`CREATE_CREDENTIAL`       :class:`CredentialRequest`   :class:`TurnCredential`
``GET`` :data:`CREDENTIALS`              ``page``, ``label``          :class:`TurnCredentialPage`
=======================================  ===========================  ==============================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from metered_sync.wire.bodies import (
    BodyError,
    JsonObject,
    json_object,
    optional_text,
    optional_whole,
    text,
    whole,
)
from metered_sync.wire.events import IceServer
from metered_sync.wire.frames import parse_ice_servers

__all__ = [
    "CREATE_CREDENTIAL",
    "CREDENTIALS",
    "ICE_SERVERS",
    "CredentialRequest",
    "TurnCredential",
    "TurnCredentialPage",
    "ice_server_list",
    "parse_ice_server_list",
]

ICE_SERVERS = "/api/v1/turn/credentials"
CREATE_CREDENTIAL = "/api/v1/turn/credential"
CREDENTIALS = "/api/v2/turn/credentials"


def parse_ice_server_list(body: object) -> tuple[IceServer, ...]:
    """Return the ICE servers of a decoded list."""
    servers = parse_ice_servers({"iceServers": body})
    if servers is None:
        raise BodyError("the body is not a list of ICE servers")
    return servers


def ice_server_list(servers: Iterable[IceServer]) -> list[JsonObject]:
    """Return a list of servers for JSON."""
    return [server.as_dict() for server in servers]


@dataclass(frozen=True)
class CredentialRequest:
    """The request for a credential: its lifetime and its label."""

    expires_in: int | None = None
    """Seconds; ``None``: it does not expire."""
    label: str | None = None

    @classmethod
    def parse(cls, body: object) -> CredentialRequest:
        """Return the request that a decoded body makes; no body at all asks for the defaults."""
        fields = json_object({} if body is None else body)
        expires_in = optional_whole(fields, "expiryInSeconds")
        if expires_in is not None and expires_in <= 0:
            raise BodyError('"expiryInSeconds" is not a positive integer')
        return cls(expires_in, optional_text(fields, "label"))

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        fields = {"expiryInSeconds": self.expires_in, "label": self.label}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class TurnCredential:
    """A name and password at the TURN servers. Both are left out of ``repr``."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    """What WebRTC calls the ``credential``."""
    api_key: str | None = field(default=None, repr=False)
    """Asks for the ICE servers with this credential in them; may be given to browsers."""
    expires_in: int | None = None
    """Seconds from its making; ``None``: it does not expire."""
    label: str | None = None
    expired: bool = False

    @classmethod
    def parse(cls, body: object) -> TurnCredential:
        """Return the credential that a decoded object describes."""
        fields = json_object(body, "the credential")
        return cls(
            text(fields, "username"),
            text(fields, "password"),
            optional_text(fields, "apiKey"),
            optional_whole(fields, "expiryInSeconds"),
            optional_text(fields, "label"),
            fields.get("expired") is True,
        )

    def body(self) -> JsonObject:
        """Return the object for JSON, as the answer to its making."""
        fields: JsonObject = {
            "username": self.username,
            "password": self.password,
            "expiryInSeconds": self.expires_in,
            "label": self.label,
            "apiKey": self.api_key,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class TurnCredentialPage:
    """One page of an app's credentials. Iterates over them."""

    credentials: tuple[TurnCredential, ...]
    total_records: int
    """Credentials on all pages."""
    current_page: int
    total_pages: int
    next_page: int | None = None
    """``None`` on the last page."""
    prev_page: int | None = None

    def __iter__(self) -> Iterator[TurnCredential]:
        return iter(self.credentials)

    def __len__(self) -> int:
        return len(self.credentials)

    @classmethod
    def parse(cls, body: object) -> TurnCredentialPage:
        """Return the page that a decoded body describes."""
        fields = json_object(body)
        entries = fields.get("data")
        if not isinstance(entries, list):
            raise BodyError('"data" is not a list')
        pagination = json_object(fields.get("pagination"), '"pagination"')
        return cls(
            tuple(TurnCredential.parse(entry) for entry in entries),
            whole(pagination, "total_records"),
            whole(pagination, "current_page"),
            whole(pagination, "total_pages"),
            optional_whole(pagination, "next_page"),
            optional_whole(pagination, "prev_page"),
        )

    def body(self) -> JsonObject:
        """Return the object for JSON."""
        return {
            "data": [{**entry.body(), "expired": entry.expired} for entry in self.credentials],
            "pagination": {
                "total_records": self.total_records,
                "current_page": self.current_page,
                "total_pages": self.total_pages,
                "next_page": self.next_page,
                "prev_page": self.prev_page,
            },
        }

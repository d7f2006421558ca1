"""Parse and build the bodies of the TURN service's calls, and lists of ICE servers.

The client and the local cloud share them. TURN is another product, on a host of its own;
its keys go into the query. Source: docs/protocol/signalling.md#turn-server-rest-api.

=======================================  ===========================  ==============================
call                                     request                      answer
=======================================  ===========================  ==============================
``GET`` :data:`ICE_SERVERS`              ``apiKey``, ``region``       :func:`parse_ice_servers`
``POST`` :data:`CREATE_CREDENTIAL`       :class:`CredentialRequest`   :class:`TurnCredential`
``GET`` :data:`CREDENTIALS`              ``page``, ``label``          :class:`TurnCredentialPage`
=======================================  ===========================  ==============================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from metered_sync.wire.events import IceServer
from metered_sync.wire.fields import FieldError, Fields, JsonObject, each

__all__ = [
    "CREATE_CREDENTIAL",
    "CREDENTIALS",
    "ICE_SERVERS",
    "CredentialRequest",
    "GivenIceServers",
    "TurnCredential",
    "TurnCredentialPage",
    "check_ice_servers",
    "has_relay",
    "ice_server_list",
    "parse_ice_servers",
    "welcome_ice_servers",
]

ICE_SERVERS = "/api/v1/turn/credentials"
"""The path of the list of ICE servers."""
CREATE_CREDENTIAL = "/api/v1/turn/credential"
"""The path of the call that makes a credential."""
CREDENTIALS = "/api/v2/turn/credentials"
"""The path of the list of credentials."""
MAX_ICE_SERVERS = 16
"""Entries of a list of ICE servers; a longer one is dropped."""
MAX_ICE_URLS = 16
"""Addresses of one entry; a list with a longer one is dropped."""
MAX_ICE_URL = 512
"""Characters of an ICE server's address."""
MAX_ICE_CREDENTIAL = 1024
"""Characters of an ICE server's user name, or of its credential."""
_CREDENTIAL = ("username", "credential")
_ICE_URL = re.compile(
    r"(stuns?:HOST(:[0-9]{1,5})?|turns?:HOST(:[0-9]{1,5})?(\?transport=(udp|tcp))?)".replace(
        "HOST", r"(\[[0-9A-Fa-f:.]+\]|[^\s?:/@\[\]]+)"
    )
)
"""The address of an ICE server (RFC 7064, RFC 7065)."""


def parse_ice_servers(body: object) -> tuple[IceServer, ...]:
    """Return the ICE servers of a decoded list; one bad entry spoils it all.

    At most 16 entries, addresses of 1 to 512 characters, credentials of at most 1,024
    (both published clients); at most 16 addresses an entry (ours).
    """
    if isinstance(body, list) and len(body) > MAX_ICE_SERVERS:
        raise FieldError(f"the list must have at most {MAX_ICE_SERVERS} ICE servers")
    return each(body, _ice_server)


def _ice_server(entry: Fields) -> IceServer:
    urls = entry.get("urls")
    urls = [urls] if isinstance(urls, str) else urls
    if not isinstance(urls, list) or not urls or not all(map(_is_ice_url, urls)):
        raise entry.error("urls", "must be an address of an ICE server, or a list of them")
    if len(urls) > MAX_ICE_URLS:
        raise entry.error("urls", f"must be at most {MAX_ICE_URLS} addresses")
    username = entry.optional_text("username", most=MAX_ICE_CREDENTIAL)
    credential = entry.optional_text("credential", most=MAX_ICE_CREDENTIAL)
    return IceServer(tuple(urls), username, credential)


def _is_ice_url(url: object) -> bool:
    schemes = ("stun:", "stuns:", "turn:", "turns:")
    return isinstance(url, str) and len(url) <= MAX_ICE_URL and url.startswith(schemes)


def has_relay(servers: Iterable[IceServer]) -> bool:
    """Return whether one of these servers is a TURN server."""
    return any(url.startswith(("turn:", "turns:")) for server in servers for url in server.urls)


class IceServerForm(Protocol):
    """An object that describes an ICE server: ours, aiortc's ``RTCIceServer``."""

    @property
    def urls(self) -> Any: ...


GivenIceServer = IceServerForm | Mapping[str, Any] | str
"""An ICE server in any form that a user may write it in."""
GivenIceServers = GivenIceServer | Iterable[GivenIceServer]
"""ICE servers as a user may give them: a list, or a single one."""


def check_ice_servers(servers: GivenIceServers, name: str = "ice_servers") -> tuple[IceServer, ...]:
    """Return ICE servers that a user gave, in whichever form they are written elsewhere.

    Args:
        servers: A list, or a single one, of addresses, mappings as browsers take them,
            :class:`~metered_sync.IceServer` or aiortc's ``RTCIceServer``.
        name: The argument's name.

    Raises:
        TypeError: One is none of those.
        ValueError: One has no address, or one that is no ICE server's. No credential is shown.
    """
    given: Any = servers
    if isinstance(given, (str, Mapping)) or hasattr(given, "urls"):
        given = [given]
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list of ICE servers, not {type(given).__name__}")
    checked: list[IceServer] = []
    for server in given:
        found = _given(server, f"{name}[{len(checked)}]")
        if isinstance(found, Exception):
            del servers, given, server, checked  # no frame of the traceback shows a credential
            raise found
        checked.append(found)
    return tuple(checked)


def _given(server: Any, where: str) -> IceServer | Exception:
    """Return an ICE server that a user gave, or the error that says what is wrong with it."""
    urls: Any
    credentials: list[Any]
    if isinstance(server, str):
        urls, credentials = server, [None, None]
    elif isinstance(server, Mapping):
        urls, credentials = server.get("urls"), [server.get(name) for name in _CREDENTIAL]
    elif hasattr(server, "urls"):
        urls, credentials = server.urls, [getattr(server, name, None) for name in _CREDENTIAL]
    else:
        return TypeError(
            f'{where} must be an address such as "stun:host:3478", an IceServer, a dict as '
            'browsers take it ({"urls": …, "username": …, "credential": …}) or aiortc\'s '
            f"RTCIceServer, not {type(server).__name__}"
        )
    urls = (urls,) if isinstance(urls, str) else urls
    if not isinstance(urls, (list, tuple)) or not urls:
        return ValueError(f'{where}: "urls" must be an address, or a list of at least one')
    for url in urls:
        if not isinstance(url, str) or not _ICE_URL.fullmatch(url):
            scheme = re.match("[A-Za-z]{1,10}:", url) if isinstance(url, str) else None
            return ValueError(
                f"{where}: an address must look like stun:host:port, stuns:host:port, "
                "turn:host:port?transport=udp or turns:host:port?transport=tcp, with user name "
                "and credential beside it, not in it"
                + (f"; one begins with {scheme.group()!r}" if scheme else "")
            )
    for name, value in zip(_CREDENTIAL, credentials, strict=True):
        if value is not None and not isinstance(value, str):
            return TypeError(f"{where}: {name} must be a string, not {type(value).__name__}")
    return IceServer(tuple(urls), *credentials)


def welcome_ice_servers(metadata: JsonObject | None) -> tuple[IceServer, ...] | None:
    """Return ``iceServers`` of a welcome's metadata; ``None`` where there is no valid list."""
    try:
        return parse_ice_servers((metadata or {}).get("iceServers"))
    except FieldError:
        return None


def welcome_metadata(metadata: JsonObject | None) -> JsonObject | None:
    """Return a welcome's metadata without its ICE servers, whose credentials are secrets."""
    if metadata is None:
        return None
    return {name: value for name, value in metadata.items() if name != "iceServers"}


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
        fields = Fields({} if body is None else body)
        expires_in = fields.optional_whole("expiryInSeconds")
        if expires_in is not None and expires_in <= 0:
            raise fields.error("expiryInSeconds", "must be a positive whole number")
        return cls(expires_in, fields.optional_text("label"))

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
        return cls.read(Fields(body))

    @classmethod
    def read(cls, fields: Fields) -> TurnCredential:
        """Return the credential that these fields describe."""
        return cls(
            fields.text("username"),
            fields.text("password"),
            fields.optional_text("apiKey"),
            fields.optional_whole("expiryInSeconds"),
            fields.optional_text("label"),
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
        fields = Fields(body)
        pagination = fields.object("pagination")
        return cls(
            fields.each("data", TurnCredential.read),
            pagination.whole("total_records"),
            pagination.whole("current_page"),
            pagination.whole("total_pages"),
            pagination.optional_whole("next_page"),
            pagination.optional_whole("prev_page"),
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

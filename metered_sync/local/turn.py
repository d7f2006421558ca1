"""Answer the TURN service's REST calls, and make the credentials they hand out.

No TURN server runs in the local cloud; the list of servers names one that may. Credentials
are made so that a coturn with ``use-auth-secret`` accepts them: the name starts with the time
of expiry, the password is an HMAC of the name under a secret that both sides know.
Source: docs/protocol/signalling.md#turn-server-rest-api.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
import time
from dataclasses import replace
from typing import Any

from aiohttp import web

from metered_sync.local.rest import Handler, Refusal, answer, explain, read_json
from metered_sync.wire.events import IceServer
from metered_sync.wire.fields import FieldError
from metered_sync.wire.turn import (
    CREATE_CREDENTIAL,
    CREDENTIALS,
    ICE_SERVERS,
    CredentialRequest,
    GivenIceServers,
    TurnCredential,
    TurnCredentialPage,
    check_ice_servers,
    ice_server_list,
    parse_ice_servers,
)

__all__ = ["DEFAULT_ICE_SERVERS", "TurnService", "check_announced"]

DEFAULT_ICE_SERVERS = (
    IceServer(("stun:127.0.0.1:3478",)),
    IceServer(("turn:127.0.0.1:3478",)),
    IceServer(("turn:127.0.0.1:3478?transport=tcp",)),
)
"""The servers of a TURN server on this machine, on its usual port."""
_UNLIMITED_LIFETIME = 10 * 365 * 86400
"""Seconds that a credential without an expiry lasts."""
_WELCOME_LIFETIME = 86400
"""Seconds that the credential of a welcome lasts."""
_PAGE_SIZE = 50
"""Credentials on one page of the list."""
# fmt: off
_REGIONS = frozenset((
    "global", "north_america", "europe", "eu", "asia", "oceania", "us_west", "us_central",
    "us_east", "canada_central", "canada_east", "europe_west", "europe_central", "asia_west",
    "asia_east", "canada", "usa", "uk", "singapore", "india", "australia", "standard",
))
# fmt: on


def check_announced(servers: GivenIceServers) -> tuple[IceServer, ...]:
    """Return ICE servers to announce, given in any form that clients take them in.

    Raises :class:`ValueError` where the service's clients would drop the list.
    """
    try:
        return parse_ice_servers(ice_server_list(check_ice_servers(servers)))
    except FieldError as error:
        raise ValueError(f"ice_servers: {error}") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


class TurnService:
    """The TURN service's calls for one app, and the credentials made by them.

    Args:
        app: The app's name, which is its only project's id, too.
        api_key: What clients show to get the list of servers.
        secret_key: What the app's own servers show to make credentials.
        shared_secret: What a TURN server is started with (coturn's ``static-auth-secret``).
        servers: The list. A TURN server in it without a name gets a credential.
    """

    def __init__(
        self,
        app: str,
        api_key: str,
        secret_key: str,
        *,
        shared_secret: str,
        servers: tuple[IceServer, ...],
    ) -> None:
        self._app = app
        self._api_key = api_key
        self._secret_key = secret_key
        self._shared_secret = shared_secret.encode()
        self._servers = servers
        self._credentials: dict[str, tuple[TurnCredential, float]] = {}
        """What was made, and until when it holds, by API key; the latest last."""

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes."""
        project = "/api/v2/turn/project/{project}"
        return [
            web.get(ICE_SERVERS, _guarded(self._list_servers)),
            web.post(CREATE_CREDENTIAL, _guarded(self._create)),
            web.get(CREDENTIALS, _guarded(self._list)),
            web.post(f"{project}/credential", _guarded(self._create)),
            web.get(f"{project}/credentials", _guarded(self._list)),
        ]

    def ice_servers(self, credential: TurnCredential | None = None) -> list[dict[str, Any]]:
        """Return the list of servers for JSON, with a credential: a fresh one, or this."""
        made = credential or self._make(_WELCOME_LIFETIME, None)
        return ice_server_list(
            server
            if server.username is not None or not server.urls[0].startswith("turn")
            else replace(server, username=made.username, credential=made.password)
            for server in self._servers
        )

    def reset(self) -> None:
        """Forget the credentials that were made."""
        self._credentials.clear()

    def _make(self, expires_in: int | None, label: str | None) -> TurnCredential:
        until = int(time.time()) + (_UNLIMITED_LIFETIME if expires_in is None else expires_in)
        username = f"{until}:{secrets.token_hex(8)}"
        digest = hmac.new(self._shared_secret, username.encode(), hashlib.sha1).digest()
        password = base64.b64encode(digest).decode()
        return TurnCredential(username, password, secrets.token_hex(16), expires_in, label)

    # --- the calls ---

    async def _list_servers(self, request: web.Request) -> web.Response:
        api_key = request.query.get("apiKey")
        if not api_key:
            explain("there is no apiKey in the query; it is turn_api_key of this cloud")
            return answer({"error": "Please specify API Key"}, 400)
        credential, until = self._credentials.get(api_key, (None, 0.0))
        if (credential is None and not _same(api_key, self._api_key)) or (
            credential is not None and until <= time.time()
        ):
            explain("apiKey is another one, or has expired; it is turn_api_key of this cloud")
            return answer({"error": "Invalid API Key"}, 401)
        if request.query.get("region", "global") not in _REGIONS:
            return answer({"error": "Invalid region"}, 400)
        # The documentation lets browsers make this call.
        return answer(self.ice_servers(credential), Access_Control_Allow_Origin="*")

    async def _create(self, request: web.Request) -> web.Response:
        self._authorize(request)
        wish = CredentialRequest.parse(await read_json(request))
        if wish.expires_in is not None and wish.expires_in > _UNLIMITED_LIFETIME:
            raise FieldError(
                f'"expiryInSeconds" is not a positive integer up to {_UNLIMITED_LIFETIME}'
            )
        made = self._make(wish.expires_in, wish.label)
        until = math.inf if wish.expires_in is None else time.time() + wish.expires_in
        self._credentials[made.api_key or ""] = made, until
        return answer(made.body())

    async def _list(self, request: web.Request) -> web.Response:
        self._authorize(request)
        query = request.query
        page = query.get("page", "1")
        if not re.fullmatch("[1-9][0-9]{0,8}", page):
            raise FieldError("page is not a positive integer")
        number = int(page)
        now = time.time()
        found = [
            replace(made, expired=until <= now)
            for made, until in self._credentials.values()
            if query.get("label") in (None, made.label)
            and (until > now or query.get("all") not in (None, "false", "0"))
        ]
        pages = max(1, math.ceil(len(found) / _PAGE_SIZE))
        listed = TurnCredentialPage(
            tuple(found[(number - 1) * _PAGE_SIZE : number * _PAGE_SIZE]),
            total_records=len(found),
            current_page=number,
            total_pages=pages,
            next_page=number + 1 if number < pages else None,
            prev_page=number - 1 if number > 1 else None,
        )
        return answer(listed.body())

    def _authorize(self, request: web.Request) -> None:
        """Check the key in the query; a project's calls take its API key as well."""
        given = [(request.query.get("secretKey"), self._secret_key)]
        project = request.match_info.get("project")
        if project is not None:
            given.append((request.query.get("projectApiKey"), self._api_key))
        if not any(key is not None and _same(key, right) for key, right in given):
            which = "another one" if any(key is not None for key, _ in given) else "not there"
            why = f"secretKey in the query is {which}; it is turn_secret_key of this cloud"
            raise Refusal(401, "Invalid secretKey", "the key is missing or wrong", why)
        if project not in (None, self._app):
            raise Refusal(404, "not_found", "no such project")


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _guarded(call: Handler) -> Handler:
    """Return a handler that turns refusals into answers."""

    async def run(request: web.Request) -> web.Response:
        try:
            return await call(request)
        except Refusal as refusal:
            return refusal.response()
        except FieldError as error:
            explain(str(error))
            return answer({"message": str(error)}, 400)

    return run

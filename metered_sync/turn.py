"""Get TURN servers and credentials for WebRTC, over REST."""

from __future__ import annotations

import os
import re
from urllib.parse import urlencode

from metered_sync._rest import RestClient
from metered_sync.engine.network.certificates import check_ca_file
from metered_sync.engine.rest import Rest, Service
from metered_sync.errors import TurnError
from metered_sync.events import IceServer
from metered_sync.wire import turn as wire
from metered_sync.wire.arguments import check_text, check_whole
from metered_sync.wire.secrets import check_secret, hides_arguments
from metered_sync.wire.turn import TurnCredential, TurnCredentialPage
from metered_sync.wire.urls import check_origin

__all__ = ["TurnApi", "TurnCredential", "TurnCredentialPage"]

_APP_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class TurnApi(RestClient):
    """TURN servers for your clients, and credentials to use them with.

    Clients that connect to Realtime Messaging are given servers in their welcome, unless
    that is switched off in the dashboard; this is for everybody else. There is no connection
    to open. One object serves all threads of a process, and may be made before it forks;
    :meth:`close`, or ``with``, gives back its idle connections.

    Args:
        app: The app's name, as in ``<app>.metered.live``.
        api_key: Asks for servers. Browsers may have it.
        secret_key: Makes and lists credentials. It stays on your server.
        url: Another origin, ``https://host`` (``http://`` for loopback hosts only).
        timeout: Seconds that a call may take, unless it says otherwise.
        ca_file: A file of certificates (PEM) to be trusted, as for
            :class:`~metered_sync.SignallingClient`.

    Raises:
        ValueError: No key, or another bad argument.
    """

    @hides_arguments
    def __init__(
        self,
        app: str,
        *,
        api_key: str | None = None,
        secret_key: str | None = None,
        url: str | None = None,
        timeout: float = 15.0,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(app, str) or not _APP_NAME.fullmatch(app):
            raise ValueError("app must be the app's name alone, as in <app>.metered.live")
        self._app = app
        super().__init__("TurnApi", timeout)
        self._api: Rest | None = None
        self._secret: Rest | None = None
        try:
            if api_key is None and secret_key is None:
                raise ValueError(
                    "TurnApi needs api_key=… for servers, secret_key=… for credentials"
                )
            for name, value in (("api_key", api_key), ("secret_key", secret_key)):
                if value is not None:
                    check_secret("TurnApi", name, value)
            origin = f"https://{app}.metered.live" if url is None else url
            self._origin = check_origin(origin, secure="https")
            service, trusted = _service(app, self._origin), check_ca_file(ca_file)
            # The service takes its keys from the query and from nowhere else.
            if api_key is not None:
                self._api = Rest(service, api_key, parameter="apiKey", ca_file=trusted)
            if secret_key is not None:
                self._secret = Rest(service, secret_key, parameter="secretKey", ca_file=trusted)
        finally:
            api_key = secret_key = value = None  # no frame of a traceback shows them

    def __repr__(self) -> str:
        return f"<TurnApi {self._app} at {self._origin}>"

    def close(self) -> None:
        """Close idle connections. Calls under way go on to their end. Repeatable."""
        super().close()
        for rest in (self._api, self._secret):
            if rest is not None:
                rest.close()

    def ice_servers(
        self, *, region: str | None = None, timeout: float | None = None
    ) -> tuple[IceServer, ...]:
        """Return STUN and TURN servers, with a credential in them, to be given to a client.

        This library's clients take them as they are (``ice_servers=…``); for a browser, or a
        token's ``metadata={"iceServers": […]}``, each has ``as_dict()``. Needs ``api_key``.

        Args:
            region: Where the servers are to be, for instance ``"europe"`` or ``"global"``;
                the nearest unless given.
            timeout: Seconds; ``None`` is the object's default.

        Raises:
            ValueError: The object has no ``api_key``.
            TurnError: Refused, or no answer; ``status`` says which.
            MeteredTimeoutError: No answer before the deadline.
        """
        return self._ask(
            _needed(self._api, "api_key"),
            "GET",
            _path(wire.ICE_SERVERS, region=_optional("region", region)),
            wire.parse_ice_servers,
            what="ice_servers",
            timeout=timeout,
            safe=True,
        )

    def create_credential(
        self,
        *,
        expires_in: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> TurnCredential:
        """Make a credential, for instance one for each user. Needs ``secret_key``.

        Args:
            expires_in: Seconds until it expires, a whole number; never unless given.
            label: A text to find it by.
            timeout: Seconds; ``None`` is the object's default.

        Returns:
            User name and password, and an API key that asks for the servers with them.

        Raises:
            ValueError: The object has no ``secret_key``, or a bad argument.
            TurnError: Refused, or no answer; unless ``sent``, it may be repeated.
            MeteredTimeoutError: No answer before the deadline; it may have been made.
        """
        if expires_in is not None:
            expires_in = check_whole("expires_in", expires_in, 1)
        return self._ask(
            _needed(self._secret, "secret_key"),
            "POST",
            wire.CREATE_CREDENTIAL,
            TurnCredential.parse,
            what="create_credential",
            timeout=timeout,
            body=wire.CredentialRequest(expires_in, _optional("label", label)).body(),
        )

    def credentials(
        self, *, page: int = 1, label: str | None = None, timeout: float | None = None
    ) -> TurnCredentialPage:
        """Return one page of the app's credentials; iterate over it, and see ``next_page``.

        Needs ``secret_key``, and a paid plan. Errors as :meth:`ice_servers`.

        Args:
            page: Which, from 1.
            label: Only those with this label.
            timeout: Seconds; ``None`` is the object's default.
        """
        return self._ask(
            _needed(self._secret, "secret_key"),
            "GET",
            _path(
                wire.CREDENTIALS,
                page=str(check_whole("page", page, 1)),
                label=_optional("label", label),
            ),
            TurnCredentialPage.parse,
            what="credentials",
            timeout=timeout,
            safe=True,
        )


def _service(app: str, origin: str) -> Service:
    """Return the TURN service of an app."""
    wrong_key = f"check that the key is one of the app {app!r}, and of the right kind"
    return Service(
        "TurnApi",
        origin,
        TurnError,
        remedies={401: wrong_key, 403: wrong_key},
        secret_answers=True,
    )


def _needed(rest: Rest | None, name: str) -> Rest:
    if rest is None:
        raise ValueError(f"this needs TurnApi(…, {name}=…), from the service's dashboard")
    return rest


def _path(path: str, **query: str | None) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _optional(name: str, value: str | None) -> str | None:
    return None if value is None else check_text(name, value)

"""Make what a web application uses of the library, of its settings, when it is first used."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from metered_sync.client import SignallingClient
from metered_sync.contrib.event_stream import RETRY_LATER, EventStream
from metered_sync.contrib.process_client import ProcessClient
from metered_sync.contrib.settings import (
    TOKEN,
    VARIABLES,
    WebSettings,
    token_function,
    value_problems,
)
from metered_sync.control import ControlPlane
from metered_sync.errors import (
    ClosedError,
    DisconnectedError,
    MeteredTimeoutError,
    NotConnectedError,
    SignallingConnectError,
)
from metered_sync.gate import SfuGate
from metered_sync.options import MESSAGING_URL
from metered_sync.tokens import mint_token
from metered_sync.wire.secrets import hides_arguments
from metered_sync.wire.tokens import parse_claims
from metered_sync.wire.urls import as_scheme

__all__ = ["GateMaker", "Resources", "html_json"]

T = TypeVar("T")
logger = logging.getLogger("metered_sync")
TIMEOUT = 5.0
"""Seconds that calls of the clients may take, unless they say otherwise: somebody waits."""
OWN_TOKEN_TTL = 24 * 3600
"""Seconds that a token of the server's own lives; it makes another one when it reconnects."""
STREAM_MESSAGES = 1024
"""Messages that may wait for one page to read them."""
STREAM_BYTES = 1 << 20
"""Bytes of them."""
COMMANDS = ("doctor", "listen", "publish", "serve")
"""Commands of the command line that run with an application's settings."""
_PASSING = (
    ClosedError,
    DisconnectedError,
    MeteredTimeoutError,
    NotConnectedError,
    SignallingConnectError,
)
_FOR_HTML = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'"}


class _Kept(Generic[T]):
    """Keep what was made of settings for as long as they stay the same."""

    def __init__(self, make: Callable[[WebSettings], T]) -> None:
        self._make = make
        self._held: tuple[WebSettings, T] | None = None

    def get(self, settings: WebSettings) -> T:
        held = self._held
        if held is None or held[0] != settings:  # (two threads may each make one: both serve)
            held = self._held = settings, self._make(settings)
        return held[1]


class Resources:
    """Hold what one web application uses: connections, tokens, the gate, a command line.

    Nothing is opened before it is needed, so that a server may fork after it has loaded the
    application. The settings are read at each use: what was made of other ones is made anew.

    Args:
        read: Returns the settings as they are now.
        error: What is raised where they cannot be used.
    """

    def __init__(
        self, read: Callable[[], WebSettings], error: type[Exception] = ValueError
    ) -> None:
        self.raw_settings = read
        """Returns the settings as they are, though they may be of no use."""
        self._error = error
        self._sound: WebSettings | None = None
        self._client = ProcessClient(lambda settings: _client(settings, "web"))
        # A connection does not get what it publishes itself: so pages are served by another one.
        self._listener = ProcessClient(lambda settings: _client(settings, "web-events"))
        self._control = _Kept(_control)

    def settings(self) -> WebSettings:
        """Return the settings as they are now, if they can be used."""
        settings = self.raw_settings()
        if settings != self._sound:
            problems = value_problems(settings, functions=False)
            problem = next((each for each in problems if each.code.startswith("E")), None)
            if problem is not None:
                raise self._error(str(problem))
            self._sound = settings
        return settings

    def client(self) -> SignallingClient:
        """Return this process's connected client; see :class:`ProcessClient`."""
        return self._client.get(self._connectable())

    def control(self) -> ControlPlane:
        """Return the control plane; it opens nothing before its first call."""
        settings = self.settings()
        self._need(settings, "KEY_ID", "KEY_SECRET")
        return self._control.get(settings)

    def events(
        self, channel: str, heartbeat: float, on_start: Callable[[], object] | None = None
    ) -> Iterable[bytes]:
        """Return a channel's messages as server-sent events; ``close()`` ends them.

        Where the service cannot be reached, they end at once, and the page tries again later.

        Raises:
            ServerRequestError: The server may not subscribe to the channel.
        """
        try:
            subscription = self._listener.get(self._connectable()).subscribe(
                channel, maxsize=STREAM_MESSAGES, max_bytes=STREAM_BYTES
            )
        except _PASSING as error:
            logger.warning("events of channel %r: %s", channel, error)
            return [RETRY_LATER]
        return EventStream(subscription, heartbeat, on_start)

    def token_function(self) -> Callable[..., Any]:
        """Return the application's function that decides about tokens."""
        try:
            return token_function(self.settings())
        except (TypeError, ValueError) as error:
            raise self._error(str(error)) from error

    @hides_arguments
    def token(self, wanted: Any) -> dict[str, Any]:
        """Sign the token that the application's function asks for.

        Args:
            wanted: The function's result: keyword arguments of :func:`~metered_sync.mint_token`.

        Returns:
            ``token``, and ``expires_at`` in unix seconds.
        """
        settings = self.settings()
        self._need(settings, "KEY_ID", "KEY_SECRET")
        named = f"{settings.owner}: the function of {settings.written[TOKEN]}"
        if not isinstance(wanted, dict):
            raise TypeError(
                f"{named} must return a dict, mint_token's keyword arguments, or None, not "
                f"{type(wanted).__name__}"
            )
        secret = settings.get("KEY_SECRET")
        try:
            token = mint_token(settings.get("KEY_ID"), secret, **wanted)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{named} returned what makes no token: {error}") from error
        return {"token": token, "expires_at": parse_claims(token, secret).expires_at}

    def page_config(self, minted: dict[str, Any] | None) -> dict[str, Any]:
        """Return what a page needs to connect; no secret is in it but the user's own token."""
        settings = self.settings()
        return {
            "url": as_scheme(settings.get("URL") or MESSAGING_URL, "ws"),
            "key": settings.get("KEY"),
            **(minted or {"token": None, "expires_at": None}),
        }

    def run_command(self, name: str, arguments: Sequence[str]) -> int:
        """Run a command of the command line with the settings; return its exit status.

        Args:
            name: How the command line is called here.
            arguments: What stands behind the name.
        """
        from metered_sync.cli import main

        settings = self.raw_settings()  # (unchecked: the doctor tells what is wrong)
        with _environment(settings):
            return main(
                arguments, name=name, commands=COMMANDS, credential=lambda: _credential(settings)
            )

    def _connectable(self) -> WebSettings:
        settings = self.settings()
        if not settings.has("KEY"):
            self._need(settings, "KEY_ID", "KEY_SECRET")
        return settings

    def _need(self, settings: WebSettings, *names: str) -> None:
        lacking = [settings.written[name] for name in names if not settings.has(name)]
        if lacking:
            raise self._error(
                f"{settings.owner}: {' and '.join(lacking)} must be set, here or in the "
                "environment (METERED_…)"
            )


class GateMaker:
    """Make the gate to the SFU of what ``sfu_gate()`` was given, and of the settings.

    Args:
        gate: A gate; unless given, one is made when it is needed.
        options: Options to make it, instead of what the settings say.

    Raises:
        TypeError: Both.
    """

    @hides_arguments
    def __init__(self, gate: SfuGate | None, options: dict[str, Any]) -> None:
        if gate is not None and options:
            raise TypeError("sfu_gate takes a gate, or the options to make one, not both")
        self._gate = gate
        self._made = _Kept(lambda settings: SfuGate(**{**_gate_options(settings), **options}))

    def get(self, resources: Resources) -> SfuGate:
        """Return the gate that was given, or the one that the settings make."""
        return self._gate if self._gate is not None else self._made.get(resources.settings())


def html_json(value: Any) -> str:
    """Return JSON that may stand in a page: in a script, and in an attribute in single quotes."""
    return json.dumps(value).translate(_FOR_HTML)


def _client(settings: WebSettings, name: str) -> SignallingClient:
    return SignallingClient(
        **_credential(settings, name), url=_origin(settings, "ws"), timeout=TIMEOUT
    )


def _control(settings: WebSettings) -> ControlPlane:
    return ControlPlane(
        settings.get("KEY_ID"),
        settings.get("KEY_SECRET"),
        url=_origin(settings, "http"),
        timeout=TIMEOUT,
    )


def _gate_options(settings: WebSettings) -> dict[str, Any]:
    names = {"SFU_APP_ID": "app_id", "SFU_SECRET": "secret", "SFU_URL": "url"}
    options = {names[name]: settings.get(name) for name in names if settings.has(name)}
    if settings.has("KEY_ID", "KEY_SECRET"):
        options["keys"] = {settings.get("KEY_ID"): settings.get("KEY_SECRET")}
    return options


def _credential(settings: WebSettings, name: str = "command") -> dict[str, Any]:
    """Return what a client of the server's own connects with, by the arguments' names.

    With a secret key, that is a token for itself, with all the key's rights. Processes on other
    machines may have the same number, so peer ids end in chance.
    """
    if settings.has("KEY_ID", "KEY_SECRET"):
        peer_id = f"{name}-{os.getpid()}-{secrets.token_hex(4)}"

        def own_token() -> str:
            key_id, secret = settings.get("KEY_ID"), settings.get("KEY_SECRET")
            return mint_token(key_id, secret, peer_id=peer_id, ttl=OWN_TOKEN_TTL)

        return {"token_provider": own_token}
    return {"api_key": settings.get("KEY")} if settings.has("KEY") else {}


def _origin(settings: WebSettings, scheme: str) -> str | None:
    url = settings.get("URL")
    return None if url is None else as_scheme(url, scheme)


@contextmanager
def _environment(settings: WebSettings) -> Iterator[None]:
    """Let the settings be what the environment says."""
    before = {variable: os.environ.get(variable) for variable in VARIABLES.values()}
    for name, variable in VARIABLES.items():
        if settings.has(name):
            os.environ[variable] = str(settings.get(name))
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value

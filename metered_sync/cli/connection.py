"""Give commands the options by which they connect, and what follows from them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from metered_sync.cli import output
from metered_sync.cli.dev_cloud import DEV_KEYS, dev_cloud, running_dev_cloud
from metered_sync.wire.urls import as_scheme

__all__ = ["Connection", "Part", "connection_options"]

Part: TypeAlias = Literal["messaging", "control", "turn", "sfu"]
"""What a command may connect to."""
Command: TypeAlias = Callable[..., Any]
MAX_SECRET = 4096
"""Bytes of a file that may hold a secret."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS: dict[Part, tuple[Callable[[Command], Command], ...]] = {
    "messaging": (
        click.option("--key", metavar="PK", help="A publishable key; else METERED_KEY."),
        click.option("--token", "bearer", metavar="TOKEN", help="A token, instead of a key."),
    ),
    "control": (
        click.option("--key-id", metavar="ID", help="A secret key's id; else METERED_KEY_ID."),
        click.option(
            "--key-secret-file",
            type=_FILE,
            help="A file with the secret key's secret; else METERED_KEY_SECRET.",
        ),
    ),
    "turn": (
        click.option(
            "--turn-secret-file",
            type=_FILE,
            help="A file with TURN's secret key; else METERED_TURN_SECRET_KEY. (Besides: "
            "METERED_TURN_APP, METERED_TURN_API_KEY.)",
        ),
    ),
    "sfu": (
        click.option("--app-id", metavar="ID", help="The SFU app's id; else METERED_SFU_APP_ID."),
        click.option(
            "--secret-file",
            type=_FILE,
            help="A file with the SFU app's secret; else METERED_SFU_SECRET.",
        ),
    ),
}


class Connection:
    """What the options and the environment say about where to connect, and with which keys.

    Each method returns keyword arguments for one of the library's classes, as
    :class:`~metered_sync.local.LocalCloud` does; ``click.UsageError`` (exit status 2) says which
    key is missing. With ``--local`` the first of them finds a running ``serve --dev``, or starts a
    local cloud that is closed with the command.
    """

    def __init__(self, parts: tuple[Part, ...], given: dict[str, Any]) -> None:
        self._parts = parts
        self._given = given
        self._context = click.get_current_context()

    def messaging(self) -> dict[str, Any]:
        """Return keyword arguments for ``SignallingClient`` and ``MeteredPeer``."""
        token, key = self._given.get("bearer"), self._given.get("key")
        if key and token:
            raise click.UsageError("--key and --token: a client connects with one of them")
        if not (key or token) and (own := self._own_credential()):
            return own | self._address("METERED_URL", "ws")
        key = key or (None if token else self._value("METERED_KEY"))
        if token:
            credential = {"token_provider": token}
        elif key:
            credential = {"api_key": key}
        else:
            raise click.UsageError(
                "no key to connect with: set METERED_KEY (pk_live_…), or give --key, --token or "
                "--local"
            )
        return credential | self._address("METERED_URL", "ws")

    def control(self) -> dict[str, Any]:
        """Return keyword arguments for ``ControlPlane``."""
        return self.key_pair() | self._address("METERED_URL", "http")

    def key_pair(self) -> dict[str, str]:
        """Return the secret key: ``key_id`` and ``secret``."""
        key_id, secret = self.known_key_pair().values()
        if not key_id or not secret:
            raise click.UsageError(
                f"no secret key: set {'METERED_KEY_SECRET' if key_id else 'METERED_KEY_ID'}, or "
                f"give {'--key-secret-file' if key_id else '--key-id'} or --local"
            )
        return {"key_id": key_id, "secret": secret}

    def known_key_pair(self) -> dict[str, str | None]:
        """Return what is known of the secret key: ``key_id`` and ``secret``, or ``None``."""
        return {
            "key_id": self._given.get("key_id") or self._value("METERED_KEY_ID"),
            "secret": self._secret("key_secret_file") or self._value("METERED_KEY_SECRET"),
        }

    def turn(self) -> dict[str, Any]:
        """Return keyword arguments for ``TurnApi``; either key may be ``None``."""
        keys = {
            "app": self._value("METERED_TURN_APP"),
            "api_key": self._value("METERED_TURN_API_KEY"),
            "secret_key": self._secret("turn_secret_file")
            or self._value("METERED_TURN_SECRET_KEY"),
        }
        if not keys["app"] or not (keys["api_key"] or keys["secret_key"]):
            raise click.UsageError(
                "no keys for TURN: set METERED_TURN_APP, and METERED_TURN_API_KEY or "
                "METERED_TURN_SECRET_KEY, or give --local"
            )
        return keys | self._address(None, "http")

    def sfu(self) -> dict[str, Any]:
        """Return keyword arguments for ``SfuClient``, ``SfuApi`` and ``SfuMedia``."""
        app_id = self._given.get("app_id") or self._value("METERED_SFU_APP_ID")
        secret = self._secret("secret_file") or self._value("METERED_SFU_SECRET")
        if not app_id or not secret:
            variable, option = ("SECRET", "--secret-file") if app_id else ("APP_ID", "--app-id")
            raise click.UsageError(
                f"no keys for the SFU: set METERED_SFU_{variable}, or give {option} or --local"
            )
        return {"app_id": app_id, "secret": secret} | self._address("METERED_SFU_URL", "http")

    @functools.cached_property
    def local(self) -> str | None:
        """The authority of the local cloud, which serves from here on; ``None`` without it."""
        if not self._given.get("local"):
            return None
        authority = running_dev_cloud()
        if authority is None:
            output.talk("no `metered-sync serve --dev` runs: using a local cloud of its own")
            cloud = self._context.with_resource(dev_cloud())
            authority = cloud.url.removeprefix("ws://")
        return authority

    def _own_credential(self) -> dict[str, Any]:
        """Return what an application connects with whose command line this is, if it says so.

        (What may use the secret key, as the doctor, gets that instead.)
        """
        function: Callable[[], dict[str, Any]] | None = self._context.obj
        if function is None or self._given.get("local") or "control" in self._parts:
            return {}
        return function()

    def _value(self, variable: str) -> str | None:
        """Return a key: the local cloud's, or the environment's."""
        if self._given.get("local"):
            return DEV_KEYS[_LOCAL_NAMES[variable]]
        return os.environ.get(variable) or None

    def _address(self, variable: str | None, scheme: str) -> dict[str, str]:
        """Return the argument ``url``, if there is one other than the library's own default."""
        url = self._given.get("url")
        if variable == "METERED_SFU_URL" and "messaging" in self._parts:
            url = None  # --url is the other service's
        if not url and self.local is not None:
            url = f"{scheme}://{self.local}"
        if not url and variable is not None:
            url = os.environ.get(variable)
        if not url:
            return {}
        return {"url": as_scheme(url, scheme)}

    def _secret(self, option: str) -> str | None:
        """Return a secret from the file that an option names, or ``None``."""
        path: Path | None = self._given.get(option)
        if path is None:
            return None
        with path.open("rb") as file:
            text = file.read(MAX_SECRET + 1).decode("ascii", "replace").strip()
        if not text or len(text) > MAX_SECRET or "\n" in text:
            raise click.UsageError(
                f"--{option.replace('_', '-')}: {path} must have one line, the secret"
            )
        return text


_LOCAL_NAMES = {
    "METERED_KEY": "publishable_key",
    "METERED_KEY_ID": "key_id",
    "METERED_KEY_SECRET": "key_secret",
    "METERED_SFU_APP_ID": "sfu_app_id",
    "METERED_SFU_SECRET": "sfu_secret",
    "METERED_TURN_APP": "turn_app",
    "METERED_TURN_API_KEY": "turn_api_key",
    "METERED_TURN_SECRET_KEY": "turn_secret_key",
}


def connection_options(*parts: Part, address: bool = True) -> Callable[[Command], Command]:
    """Add the options by which a command connects; it gets them as its argument ``connection``.

    Without ``address`` it connects to nothing, and needs the keys alone.
    """
    options = [option for part in parts for option in _OPTIONS[part]]
    if address:
        options.append(
            click.option("--url", metavar="ORIGIN", help="Another address of the service.")
        )
    options.append(
        click.option(
            "--local",
            is_flag=True,
            help="Use the local cloud: a running `serve --dev`, else one for this command alone."
            if address
            else "Use the keys of `serve --dev`.",
        )
    )
    names = ("key", "bearer", "key_id", "key_secret_file", "turn_secret_file", "app_id")

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(*args: Any, **values: Any) -> Any:
            given = {
                name: values.pop(name)
                for name in (*names, "secret_file", "url", "local")
                if name in values
            }
            return command(*args, connection=Connection(parts, given), **values)

        decorated: Command = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate

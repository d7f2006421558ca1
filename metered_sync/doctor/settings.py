"""Gather what is examined: addresses and keys, from arguments, the environment or a local cloud."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metered_sync.wire.secrets import (
    check_api_key,
    check_key_pair,
    check_secret,
    check_sfu_app,
    check_token,
    scrub,
)

if TYPE_CHECKING:
    from metered_sync.local import LocalCloud

__all__ = ["VARIABLES", "KeyProblem", "Settings"]

MESSAGING = "METERED_KEY, or METERED_KEY_ID and METERED_KEY_SECRET"
VARIABLES = {
    "url": "METERED_URL",
    "key": "METERED_KEY",
    "key_id": "METERED_KEY_ID",
    "key_secret": "METERED_KEY_SECRET",
    "sfu_app_id": "METERED_SFU_APP_ID",
    "sfu_secret": "METERED_SFU_SECRET",
    "sfu_url": "METERED_SFU_URL",
    "turn_app": "METERED_TURN_APP",
    "turn_api_key": "METERED_TURN_API_KEY",
    "turn_secret_key": "METERED_TURN_SECRET_KEY",
}
"""The variable of the environment behind each setting."""
_SECRET = ("key", "token", "key_secret", "sfu_secret", "turn_api_key", "turn_secret_key")
_PAIRS = (("key_id", "key_secret"), ("sfu_app_id", "sfu_secret"))
MIN_HIDDEN = 6
"""Characters from which on a value is cut out of texts; shorter ones would garble them."""


@dataclass(frozen=True)
class KeyProblem:
    """What is wrong with a key, by its form alone."""

    group: str
    """``"messaging"``, ``"pair"``, ``"sfu"`` or ``"turn"``."""
    what: str
    remedy: str


@dataclass(frozen=True)
class Settings:
    """Addresses and keys of one examination. No ``repr`` shows them."""

    values: Mapping[str, str] = field(repr=False)
    """What is there, by the names of :data:`VARIABLES`, and ``token``."""
    token_provider: Callable[[], Any] | None = field(default=None, repr=False)
    ca_file: str | None = None
    ice_servers: Any = field(default=None, repr=False)
    local: bool = False
    """Whether it is a local cloud of this machine."""

    @classmethod
    def gather(
        cls,
        given: Mapping[str, str | None],
        cloud: LocalCloud | None,
        **options: Any,
    ) -> Settings:
        """Return the settings: arguments first, then the cloud's, or else the environment's."""
        if cloud is not None:
            base = {
                "url": cloud.url,
                "key": cloud.publishable_key,
                "key_id": cloud.key_id,
                "key_secret": cloud.key_secret,
                "sfu_app_id": cloud.sfu_app_id,
                "sfu_secret": cloud.sfu_secret,
                "sfu_url": cloud.http_url,
                "turn_app": cloud.turn_app,
                "turn_api_key": cloud.turn_api_key,
                "turn_secret_key": cloud.turn_secret_key,
                "turn_url": cloud.http_url,
            }
        else:
            base = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
        base |= {name: value for name, value in given.items() if value is not None}
        return cls({n: v for n, v in base.items() if v}, local=cloud is not None, **options)

    def get(self, name: str) -> str | None:
        """Return a setting; ``None`` where it is not there."""
        return self.values.get(name)

    @property
    def url(self) -> str:
        """The messaging service's origin."""
        from metered_sync.options import MESSAGING_URL

        return self.values.get("url", MESSAGING_URL)

    @property
    def control_url(self) -> str:
        """The origin of the control plane: messaging's, by HTTP."""
        url = self.url
        return "http" + url[2:] if url.startswith("ws") else url

    @property
    def has_pair(self) -> bool:
        """Whether both halves of a secret key are there."""
        return "key_id" in self.values and "key_secret" in self.values

    @property
    def has_sfu(self) -> bool:
        """Whether an SFU app and its secret are there."""
        return "sfu_app_id" in self.values and "sfu_secret" in self.values

    @property
    def is_one_peer(self) -> bool:
        """Whether all connections are one peer: those with a token of the user's are."""
        return "token" in self.values or self.token_provider is not None

    def connection(self) -> dict[str, Any]:
        """Return the arguments with which a client connects; empty where no key is there."""
        common = {"url": self.url, "ca_file": self.ca_file}
        if self.token_provider is not None:
            return {**common, "token_provider": self.token_provider}
        if "token" in self.values:
            return {**common, "token_provider": self.values["token"]}
        if "key" in self.values:
            return {**common, "api_key": self.values["key"]}
        if not self.has_pair:
            return {}
        pair = self.values["key_id"], self.values["key_secret"]
        peer_id = f"doctor-{secrets.token_hex(6)}"

        def provide() -> str:
            from metered_sync.tokens import mint_token

            return mint_token(*pair, peer_id=peer_id, ttl=300)

        return {**common, "token_provider": provide}

    def hide(self, text: str) -> str:
        """Return a text as a report may show it: on one line, without any key that is in here."""
        hidden = [self.values[name] for name in _SECRET if name in self.values]
        for value in sorted(hidden, key=len, reverse=True):
            if len(value) >= MIN_HIDDEN:
                text = text.replace(value, "…")
        return scrub(text)

    def problems(self) -> list[KeyProblem]:
        """Return what is wrong with the keys, judged by their form."""
        found: list[KeyProblem] = []
        values = self.values
        for first, second in _PAIRS:
            if (first in values) != (second in values):
                there, lacking = (first, second) if first in values else (second, first)
                found.append(
                    KeyProblem(
                        "sfu" if first == "sfu_app_id" else "pair",
                        f"{VARIABLES[there]} is set, but {VARIABLES[lacking]} is not",
                        f"set {VARIABLES[lacking]}, too: the two belong together",
                    )
                )
        checks: list[tuple[str, Callable[[], object]]] = []
        if "token" in values:
            checks.append(("messaging", lambda: _check_token(values["token"])))
        elif "key" in values:
            checks.append(("messaging", lambda: check_api_key("-", "METERED_KEY", values["key"])))
        if self.has_pair:
            names = VARIABLES["key_id"], VARIABLES["key_secret"]
            checks.append(
                (
                    "pair",
                    lambda: check_key_pair("-", values["key_id"], values["key_secret"], names),
                )
            )
        if self.has_sfu:
            sfu_names = VARIABLES["sfu_app_id"], VARIABLES["sfu_secret"]
            checks.append(
                (
                    "sfu",
                    lambda: check_sfu_app(
                        "-", values["sfu_app_id"], values["sfu_secret"], sfu_names
                    ),
                )
            )
        for name in ("turn_api_key", "turn_secret_key"):
            if name in values:
                checks.append(
                    ("turn", lambda name=name: check_secret("-", VARIABLES[name], values[name]))  # type: ignore[misc]
                )
        for group, check in checks:
            try:
                check()
            except ValueError as error:
                found.append(_problem(group, str(error)))
        return found

    def problem(self, group: str) -> KeyProblem | None:
        """Return what is wrong with the keys of one group, where something is."""
        return next((one for one in self.problems() if one.group == group), None)

    @property
    def messaging_group(self) -> str:
        """Which group of keys connects to messaging."""
        keyless = "key" not in self.values and not self.is_one_peer
        return "pair" if keyless else "messaging"


def _check_token(token: str) -> None:
    try:
        check_token(token)
    except ValueError as error:
        raise ValueError(f"-: the token {error}") from None


def _problem(group: str, text: str) -> KeyProblem:
    """Take the words of a check apart: what it is, and what to do."""
    text = text.removeprefix("-: ").replace("token_provider ", "the token ")
    what, _, advice = text.partition("; ")
    what, _, slot = what.partition(", which belongs to ")
    name = what.split(" ", 1)[0]
    if "old form" in what:
        remedy = "make a pair, sk_id_… and sk_secret_…, in the dashboard, and use that instead"
    elif "swapped" in what:
        remedy = "exchange the two values"
    elif slot:
        remedy = f"it belongs to {slot}; give {name} {_WANTED.get(name, 'its own value')}"
    elif "copied" in advice:
        remedy = "copy it again from the dashboard, whole and nothing but it"
    elif "same text" in what:
        remedy = "copy both again from the dashboard"
    else:
        remedy = f"give {name} {_WANTED.get(name, 'its own value')}"
    return KeyProblem(group, what, remedy)


_WANTED = {
    "METERED_KEY": "a publishable key (pk_live_…)",
    "METERED_KEY_ID": "the id of a secret key (sk_id_…)",
    "METERED_KEY_SECRET": "the secret of a secret key (sk_secret_…)",
    "METERED_SFU_APP_ID": "the id of the SFU app",
    "METERED_SFU_SECRET": "the secret of the SFU app",
    "METERED_TURN_API_KEY": "the API key of the TURN app",
    "METERED_TURN_SECRET_KEY": "the secret key of the TURN app",
}
"""What belongs into each variable."""

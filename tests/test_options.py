from __future__ import annotations

import contextvars
import math
from typing import Any

import pytest

from metered_sync import Token
from metered_sync.options import (
    MESSAGING_URL,
    ReconnectOptions,
    check_during_outage,
    signalling_options,
)

GIVEN: dict[str, Any] = {
    "api_key": "pk_live_x",
    "token_provider": None,
    "url": None,
    "reconnect": True,
    "inactivity_timeout": 60.0,
    "token_provider_timeout": 10.0,
    "auto_resubscribe": True,
    "rate_limit": (90, 180),
}


def options(**changed: Any) -> Any:
    return signalling_options("A client", **{**GIVEN, **changed})


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METERED_KEY", "METERED_URL"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_left_out_is_filled_in() -> None:
    made = options()
    assert (made.url, made.api_key) == (MESSAGING_URL, "pk_live_x")
    assert (made.reconnect, made.rate_limit) == (ReconnectOptions(), (90.0, 180.0))
    assert made.token_provider is None


def test_the_environment_has_a_key_and_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="A client needs api_key="):
        options(api_key=None)
    monkeypatch.setenv("METERED_KEY", "pk_live_env")
    monkeypatch.setenv("METERED_URL", "ws://127.0.0.1:1")
    made = options(api_key=None)
    assert (made.api_key, made.url) == ("pk_live_env", "ws://127.0.0.1:1")
    assert options(api_key=None, url="wss://other.example").url == "wss://other.example"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token_provider": "h.p.s"}, "not both"),
        ({"api_key": ""}, "non-empty string"),
        ({"api_key": "sk_secret_x"}, "api_key is the secret of a secret key"),
        ({"api_key": None, "token_provider": ""}, "token_provider must be .* not an empty string"),
        ({"api_key": None, "token_provider": "sk_secret_x"}, "token_provider is the secret of"),
        ({"api_key": None, "token_provider": Token("pk_live_secret_x", 0)}, "a publishable key"),
        ({"url": "https://x.example"}, "wss"),
        ({"inactivity_timeout": 0}, "inactivity_timeout"),
        ({"token_provider_timeout": True}, "token_provider_timeout"),
        ({"rate_limit": (0, 10)}, "rate_limit"),
        ({"rate_limit": (10, 0.5)}, "rate_limit"),
        ({"rate_limit": 10}, "rate_limit"),
    ],
)
def test_values_that_cannot_be_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        options(**changed)
    assert "secret_x" not in str(caught.value)


@pytest.mark.parametrize("changed", [{"reconnect": 1}, {"api_key": None, "token_provider": 3}])
def test_types_that_cannot_be_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        options(**changed)


def test_how_a_lost_connection_is_made_again() -> None:
    own = ReconnectOptions(max_attempts=3)
    assert options(reconnect=False).reconnect is None
    assert options(reconnect=own).reconnect is own


def test_no_limit_and_infinite_bursts() -> None:
    assert options(rate_limit=None).rate_limit is None
    assert options(rate_limit=(math.inf, math.inf)).rate_limit == (math.inf, math.inf)


def test_a_fixed_token_cannot_be_renewed() -> None:
    made = options(api_key=None, token_provider="h.p.s")
    assert made.token_provider() == "h.p.s"
    assert not made.renewable
    assert options(api_key=None, token_provider=lambda: "h.p.s").renewable


def test_a_token_object_stands_for_its_text() -> None:
    assert options(api_key=None, token_provider=Token("h.p.s", 0)).token_provider() == "h.p.s"


def test_the_environments_address_holds_whatever_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_KEY", "pk_live_env")
    monkeypatch.setenv("METERED_URL", "ws://127.0.0.1:1")
    for given in (
        {"api_key": "pk_live_x"},
        {"api_key": None, "token_provider": "h.p.s"},
        {"api_key": None, "token_provider": lambda: "h.p.s"},
        {"api_key": None},
    ):
        assert options(**given).url == "ws://127.0.0.1:1"
        assert options(**given, url="wss://x.example").url == "wss://x.example"
    monkeypatch.setenv("METERED_URL", "https://x.example")
    with pytest.raises(ValueError, match="METERED_URL must be an origin like wss://"):
        options()
    monkeypatch.setenv("METERED_URL", "")
    assert options().url == MESSAGING_URL
    monkeypatch.setenv("METERED_KEY", "pk_live_x\n")
    with pytest.raises(ValueError, match="METERED_KEY contains a line break"):
        options(api_key=None)


def test_a_provider_sees_the_context_that_the_client_was_made_in() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("alice")
    made = options(api_key=None, token_provider=tenant.get)
    tenant.set("bob")
    assert made.token_provider() == made.token_provider() == "alice"


def test_during_outage() -> None:
    assert check_during_outage("wait") == "wait"
    assert check_during_outage("fail") == "fail"
    with pytest.raises(ValueError, match="during_outage"):
        check_during_outage("later")  # type: ignore[arg-type]

"""Test which origins are accepted, and which address a client connects to."""

from __future__ import annotations

import pytest

from metered_sync.wire.urls import as_scheme, check_origin, signalling_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://rms.metered.ca", "wss://rms.metered.ca"),
        ("wss://rms.metered.ca/", "wss://rms.metered.ca"),
        ("ws://127.0.0.1:80", "ws://127.0.0.1:80"),
        ("ws://localhost:9292", "ws://localhost:9292"),
        ("ws://[::1]:1", "ws://[::1]:1"),
    ],
)
def test_origins(url: str, expected: str) -> None:
    assert check_origin(url, secure="wss") == expected


@pytest.mark.parametrize(
    "url",
    [
        "", "rms.metered.ca", "https://rms.metered.ca", "wss://", "wss://host/v1", "wss://host?x=1",
        "wss://host#x", "wss://user:pw@host", "ws://rms.metered.ca", "wss://host:port", "wss://[x",
    ],
)  # fmt: skip
def test_what_is_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        check_origin(url, secure="wss")


def test_a_password_is_not_repeated() -> None:
    for url in ("wss://user:HUSH@host", "ws://user:HUSH@host:1/x", "wss://user:HUSH@host:x"):
        with pytest.raises(ValueError) as caught:
            check_origin(url, secure="wss")
        assert "HUSH" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "scheme", "expected"),
    [
        ("https://host", "ws", "wss://host"),
        ("http://127.0.0.1:1", "ws", "ws://127.0.0.1:1"),
        ("wss://host", "http", "https://host"),
        ("ws://127.0.0.1:1", "http", "http://127.0.0.1:1"),
        ("wss://host", "ws", "wss://host"),
        ("https://host", "http", "https://host"),
        ("httpx://host", "ws", "httpx://host"),
        ("host", "ws", "host"),
    ],
)
def test_one_address_by_both_schemes(url: str, scheme: str, expected: str) -> None:
    assert as_scheme(url, scheme) == expected


def test_an_origin_must_be_text() -> None:
    with pytest.raises(TypeError):
        check_origin(7, secure="https")


def test_credentials_are_percent_encoded() -> None:
    assert signalling_url("wss://h", key="pk_live_a&b=c") == "wss://h/v1?key=pk_live_a%26b%3Dc"
    assert signalling_url("wss://h", token="a+b") == "wss://h/v1?token=a%2Bb"

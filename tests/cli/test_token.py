"""Test token: what it makes is accepted, and what is wrong with one is explained."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from metered_sync import SignallingClient
from metered_sync.local import LocalCloud
from tests.support.command_line import Outcome, call, on_terminal


def signed(dev: LocalCloud, secret: str | None = None, kid: Any = "", **claims: Any) -> str:
    """Return a token of any claims."""
    claims = {"sub": "bob", "exp": time.time() + 3600} | claims
    claims = {name: value for name, value in claims.items() if value is not ...}
    headers = {} if kid is None else {"kid": kid or dev.key_id}
    return jwt.encode(claims, secret or dev.key_secret, algorithm="HS256", headers=headers)


def test_a_token_connects(dev: LocalCloud) -> None:
    done = call(
        "token", "--local", "--peer-id", "bob", "--channel", "a", "--channel", "b/*",
        "--permission", "send", "--permission", "publish", "--ttl", "60",
        "--peer-metadata", '{"name": "Bob"}',
    )  # fmt: skip
    assert (done.status, done.err, len(done.lines)) == (0, "", 1)
    claims = jwt.decode(done.lines[0], dev.key_secret, algorithms=["HS256"])
    assert claims["channels"] == ["a", "b/*"]
    assert claims["permissions"] == ["send", "publish"]
    assert claims["peerMetadata"] == {"name": "Bob"}
    with SignallingClient(token_provider=done.lines[0], url=dev.url) as client:
        assert client.peer_id == "bob"
    (told,) = call("token", "--local", "--peer-id", "bob", "--json").json
    assert set(told) == {"token", "expires_at"}
    assert abs(told["expires_at"] - time.time() - 3600) < 60


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--peer-id", "é"],
        ["--peer-id", "a", "--ttl", "0"],
        ["--peer-id", "a", "--ttl", "nan"],
        ["--peer-id", "a", "--ttl", "inf"],
        ["--peer-id", "a", "--permission", "fly"],
        ["--peer-id", "a", "--metadata", "{"],
        ["--peer-id", "a", "--metadata", "[1]"],
        ["--peer-id", "a", "--channel", ""],
        ["eyJ.eyJ.x"],
        ["--decode", "--ttl", "5"],
        ["--decode", "a", "b"],
    ],
)
def test_misuse(dev: LocalCloud, args: list[str]) -> None:
    done = call("token", "--local", *args)
    assert (done.status, done.out) == (2, "")
    assert "Error" in done.err


def test_no_key_says_what_to_set(dev: LocalCloud) -> None:
    done = call("token", "--peer-id", "a")
    assert done.status == 2
    assert "METERED_KEY_ID" in done.err
    done = call("token", "--peer-id", "a", "--key-id", "sk_id_a")
    assert "--key-secret-file" in done.err


CASES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"exp": 1000}, "expired"),
    ({"exp": ...}, "the claim exp (when it expires) is missing"),
    ({"exp": "soon"}, "the claim exp is no number"),
    ({"exp": 10**30, "nbf": 10**29}, "not valid before"),
    ({"sub": ...}, "the claim sub (who its bearer is) is missing"),
    ({"sub": "é"}, "printable ASCII"),
    ({"sub": ["bob"]}, "must be a string"),
    ({"channels": "a"}, "channels is not a list of strings"),
    ({"channels": ["a"] * 101}, "the limit is 100"),
    ({"metadata": [1]}, "metadata is not a mapping"),
    ({"secret": "sk_secret_another_one_entirely_and_long"}, "signature is wrong"),
    ({"kid": None}, "names no key"),
)


@pytest.mark.parametrize(("changes", "words"), CASES)
def test_what_is_wrong_with_a_token(dev: LocalCloud, changes: dict[str, Any], words: str) -> None:
    token = signed(dev, **changes)
    done = call("token", "--local", "--decode", token)
    assert (done.status, done.err) == (1, "")
    assert words in done.out
    assert done.lines[-1] == "verdict\trefused"
    (told,) = call(
        "token", "--local", "--decode", "--json", stdin=f" Bearer {token}\n".encode()
    ).json
    assert told["accepted"] is False
    assert words in " ".join(told["problems"])
    assert dev.key_secret not in done.out


def test_a_good_token_is_explained(dev: LocalCloud) -> None:
    servers = {"iceServers": [{"urls": "turn:x", "credential": "hidden"}]}
    token = signed(dev, channels=[], permissions=["publish", "fly"], metadata=servers)
    done = call("token", "--local", "--decode", token)
    assert (done.status, done.err) == (0, "")
    assert "it does not grant subscribe, presence, send; rooms need send" in done.out
    assert "it grants none" in done.out
    assert "'fly'" in done.out
    assert "hidden" not in done.out
    rows = dict(line.split("\t")[:2] for line in done.lines)
    assert rows["signature"] == "good"
    assert rows["peer"] == "bob"
    assert rows["valid"].startswith("for 60 minutes") or rows["valid"].startswith("for 1 hour")


def test_without_the_secret_the_signature_is_not_checked(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signed(dev)
    (told,) = call("token", "--decode", token, "--json").json
    assert (told["accepted"], told["signature"]) == (True, "not checked")
    monkeypatch.setenv("METERED_KEY_ID", "sk_id_another")
    monkeypatch.setenv("METERED_KEY_SECRET", "sk_secret_of_another_key_altogether")
    (told,) = call("token", "--decode", token, "--json").json
    assert (told["accepted"], told["signature"]) == (True, "not checked")
    assert "sk_id_another" in " ".join(told["notes"])


@pytest.mark.parametrize(
    "text", ["", "x", "x.y.z", "a.b", "\x1b[31m", "pk_live_abc", "é" * 9, "." * 9]
)
def test_no_token_at_all(dev: LocalCloud, text: str) -> None:
    done = call("token", "--decode", stdin=text.encode())
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "no token" in done.err


def test_a_terminal_shows_it_in_a_table(dev: LocalCloud) -> None:
    with on_terminal("token", "--local", "--decode", signed(dev), columns=30) as terminal:
        shown = terminal.read_until(None)
    assert "accepted now" in shown


def test_no_outcome_shows_a_secret(dev: LocalCloud) -> None:
    assert call("token", "--local", "--decode", dev.key_secret) == Outcome(
        2, "", call("token", "--decode", stdin=b"x").err
    )
    done = call("token", "--local", "--decode", "a.b.c", dev.key_secret)
    assert done.status == 2
    assert dev.key_secret not in done.err

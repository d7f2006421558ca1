"""Test how tokens are signed and read, and what they grant."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from metered_sync import mint_token
from metered_sync.wire.tokens import Grant, key_id, object_problem, parse_claims

SECRET = "sk_secret_" + "s" * 40


def mint(**claims: Any) -> str:
    return mint_token("sk_id_1", SECRET, **{"peer_id": "alice", **claims})


def test_a_minted_token_reads_back() -> None:
    token = mint(channels=["a/*"], permissions=["send"], metadata={"m": 1}, peer_metadata={"p": 2})
    assert key_id(token) == "sk_id_1"
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    claims = parse_claims(token, SECRET)
    assert (claims.peer_id, claims.channels, claims.permissions) == ("alice", ("a/*",), ("send",))
    assert (claims.metadata, claims.peer_metadata) == ({"m": 1}, {"p": 2})
    assert 3590 < claims.expires_at - time.time() < 3610


def test_left_out_claims_inherit_and_empty_ones_grant_nothing() -> None:
    key = Grant((("a/**",),), frozenset(("publish", "send")))
    inherited = key.narrowed(parse_claims(mint(), SECRET))
    assert inherited.covers("a/b")
    assert inherited.actions == {"publish", "send"}
    nothing = key.narrowed(parse_claims(mint(channels=[], permissions=[]), SECRET))
    assert not nothing.covers("a/b")
    assert not nothing.actions
    # A token cannot widen its key.
    wide = key.narrowed(parse_claims(mint(channels=["**"], permissions=["subscribe"]), SECRET))
    assert wide.covers("a/b")
    assert not wide.covers("b")
    assert not wide.actions


def test_a_grant_covers_a_pattern_if_each_of_its_groups_does() -> None:
    key = Grant((("a/**", "b"),))
    assert key.covers_pattern("a/*/c")
    assert not key.covers_pattern("**")
    narrow = key.narrowed(parse_claims(mint(channels=["a/*", "**/x"]), SECRET))
    assert narrow.covers_pattern("a/*")
    assert narrow.covers_pattern("a/**/x")
    assert not narrow.covers_pattern("a/**")
    assert not narrow.covers_pattern("c/*/x")


@pytest.mark.parametrize(
    "claims",
    [
        {"peer_id": ""},
        {"peer_id": "é"},
        {"peer_id": "x" * 129},
        {"channels": ["c"] * 101},
        {"channels": [7]},
        {"permissions": ["fly"]},
        {"permissions": ["send"] * 17},
        {"metadata": {"x": "y" * 8192}},
        {"peer_metadata": {"x": "y" * 4096}},
        {"peer_metadata": []},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": True},
        {"ttl": float("nan")},
    ],
)
def test_caps_are_checked_before_signing(claims: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        mint(**claims)


def test_one_string_is_not_a_list_of_channels() -> None:
    with pytest.raises(TypeError, match="list"):
        mint(channels="room")


def test_metadata_that_is_no_json_are_named() -> None:
    words = r"the peer_metadata cannot .* \(at peer_metadata\['at'\]: send list"
    with pytest.raises(TypeError, match=words):
        object_problem("peer_metadata", {"at": {1, 2}}, 1000)


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "é" * 50])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(ValueError):
        key_id(token)


def test_what_is_a_token_but_not_ours() -> None:
    good = {"sub": "a", "exp": 2_000_000_000}
    sign = {"algorithm": "HS256", "headers": {"kid": "sk_id_1"}}
    with pytest.raises(ValueError, match="no key"):
        key_id(jwt.encode(good, SECRET, algorithm="HS256"))
    for payload, secret in (
        (good, "another" * 8),
        ({"sub": "a"}, SECRET),
        ({"exp": 2_000_000_000}, SECRET),
        ({**good, "exp": "soon"}, SECRET),
        ({**good, "channels": "room"}, SECRET),
        ({**good, "sub": ""}, SECRET),
    ):
        token = jwt.encode(payload, secret, **sign)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            parse_claims(token, SECRET)
    with pytest.raises(ValueError):
        parse_claims(jwt.encode(good, "", algorithm="none", headers={"kid": "k"}), SECRET)


def test_permissions_of_a_newer_service_are_passed_over() -> None:
    token = jwt.encode(
        {"sub": "a", "exp": 2_000_000_000, "permissions": ["send", "teleport"]},
        SECRET,
        algorithm="HS256",
        headers={"kid": "sk_id_1"},
    )
    assert parse_claims(token, SECRET).permissions == ("send",)


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "x", "\ud800", [], {}, [[]], 10**400, -1])
def test_claims_of_any_type_are_read_or_refused(value: object) -> None:
    good = {"sub": "a", "exp": 2_000_000_000}
    names = ("sub", "exp", "channels", "permissions", "metadata", "peerMetadata", "iat", "aud")
    for name in names:
        token = jwt.encode({**good, name: value}, SECRET, "HS256", headers={"kid": "k"})
        try:
            parse_claims(token, SECRET)
        except ValueError:
            pass

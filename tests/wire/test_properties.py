"""Test what holds for every input: what is built parses back; parsers raise only their errors.

Frames are compared with a plain reading of them by ``json.loads``, written here, so that no
short way through a parser can tell another story. The draws are the same in each run
(``--hypothesis-profile=explore`` makes new ones).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from metered_sync.events import Direct, Message, Presence, PresencePeer
from metered_sync.wire import control, frames, names, secrets, sfu, tokens, turn, urls
from metered_sync.wire.fields import FieldError
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import ACTIONS
from metered_sync.wire.turn import welcome_ice_servers
from tests.support.plain_json import plain_json


@pytest.fixture(scope="module", params=["as installed", "plain"], autouse=True)
def json_library(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the optional JSON library, where it is installed, and without."""
    with plain_json() if request.param == "plain" else nullcontext():
        yield


# --- inputs ---------------------------------------------------------------------------

characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=12)
names_ = st.text(characters, min_size=1, max_size=12)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(characters), inner, max_size=4)
    ),
    max_leaves=12,
)
metadata = st.none() | st.dictionaries(names_, json_values, max_size=3)
peers = st.lists(st.builds(PresencePeer, names_, metadata), max_size=3).map(tuple)

FIELDS = {
    "welcome": ("peerId", "expiresAt", "serverTime", "maxMessageSize", "metadata"),
    "ack": ("requestId",),
    "error": ("code", "message", "requestId"),
    "message": ("channel", "from", "data", "fromMetadata"),
    "direct": ("from", "data", "fromMetadata"),
    "presence": ("channel", "joined", "left"),
    "going_away": ("retryAfterMs",),
    "pong": ("requestId",),
    "subscribe": ("requestId", "channel", "includeSenderMetadata"),
    "publish": ("requestId", "channel", "data"),
    "send": ("requestId", "to", "data"),
    "ping": ("requestId",),
    "from_the_future": ("requestId",),
}
"""Each kind of frame and its fields, in their usual order."""

entries = st.lists(
    st.fixed_dictionaries({"peerId": texts}, optional={"metadata": json_values}) | json_values,
    max_size=3,
)
values = {
    "data": json_values,
    "joined": entries,
    "left": entries,
    "metadata": metadata,
    "fromMetadata": metadata,
    "expiresAt": st.none() | st.integers() | st.floats(allow_nan=False),
    "serverTime": st.integers() | st.floats(allow_nan=False),
    "maxMessageSize": st.integers() | st.floats(allow_nan=False),
    "retryAfterMs": st.integers() | st.floats(allow_nan=False),
    "includeSenderMetadata": st.booleans(),
}
ids = st.from_regex(r"[0-9a-f]{2}-[1-9][0-9]{0,2}", fullmatch=True)


def spelled(draw: st.DrawFn, value: Any, odd: bool) -> str:
    """Return JSON text for a value, spelled in one of the ways there are."""
    ensure_ascii = draw(st.booleans()) if odd else False
    text = json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"))
    if odd and isinstance(value, str) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        if ord(value[at]) < 0x10000:  # one character as an escape
            escape = f"\\u{ord(value[at]):04x}"
            text = json.dumps(value[:at])[:-1] + escape + json.dumps(value[at + 1 :])[1:]
    return text


@st.composite
def near_frames(draw: st.DrawFn) -> str:
    """The text of a frame, or of what is nearly one."""
    kind = draw(st.sampled_from([*FIELDS, "ack", "ack", "message"]))
    odd = draw(st.booleans())
    pairs: list[tuple[str, Any]] = [("type", kind)]
    for name in FIELDS[kind]:
        pairs.append((name, draw(values.get(name, ids if name == "requestId" else texts))))
    if odd:
        for change in draw(st.lists(st.integers(0, 6), max_size=3)):
            at = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
            if change == 0:
                pairs = draw(st.permutations(pairs))
            elif change == 1 and pairs:  # the same key again
                pairs.insert(draw(st.integers(0, len(pairs))), (pairs[at][0], draw(json_values)))
            elif change == 2 and pairs:
                pairs.pop(at)
            elif change == 3 and pairs:
                pairs[at] = (pairs[at][0], draw(json_values))
            elif change == 4:
                pairs.insert(at, (draw(texts), draw(json_values)))
            elif change == 5:
                pairs.insert(at, (draw(texts), {"type": "ack", "requestId": draw(ids)}))
            elif change == 6:
                pairs.insert(at, ("type", draw(st.sampled_from([*FIELDS, "", 7]))))
    gaps = st.sampled_from(["", "", "", " ", "\n", "\t \r"]) if odd else st.just("")
    text = "{" + draw(gaps)
    for number, (key, value) in enumerate(pairs):
        text += "," + draw(gaps) if number else ""
        text += spelled(draw, key, odd) + draw(gaps) + ":" + draw(gaps)
        text += spelled(draw, value, odd) + draw(gaps)
    text += "}"
    if odd and draw(st.integers(0, 5)) == 0:  # cut, or something around it
        at = draw(st.integers(0, len(text)))
        return draw(st.sampled_from([text[:at], text[at:], text + "}", " " + text, "\ufeff" + text,
                                     text + "x", text + text, f"[{text}]"]))  # fmt: skip
    return text


# --- frames, read plainly -------------------------------------------------------------


def read(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        fields = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("type"), str) else None


def is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def an_object(value: Any) -> Any:
    return value if isinstance(value, dict) else None


def a_text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def members(value: Any) -> Any:
    """Return a list of members; ``None`` if it is none."""
    if not isinstance(value, list):
        return None
    if not all(isinstance(v, dict) and isinstance(v.get("peerId"), str) for v in value):
        return None
    return tuple(PresencePeer(v["peerId"], an_object(v.get("metadata"))) for v in value)


def server_frame(text: str) -> Any:
    """Read a server's frame plainly: the value, ``None``, or ``"refused"``."""
    f = read(text)
    if f is None:
        return "refused"
    kind, get = f["type"], f.get
    sender, meta = get("from"), an_object(get("fromMetadata"))
    if kind == "ack":
        return frames.Ack(get("requestId")) if a_text(get("requestId")) is not None else "refused"
    if kind in ("message", "direct"):
        if "data" not in f or a_text(sender) is None:
            return "refused"
        if kind == "direct":
            return Direct(sender, f["data"], meta)
        if a_text(get("channel")) is None:
            return "refused"
        return Message(f["channel"], sender, f["data"], meta)
    if kind == "presence":
        joined, left = members(get("joined")), members(get("left"))
        if a_text(get("channel")) is None or joined is None or left is None:
            return "refused"
        return Presence(f["channel"], joined, left)
    if kind == "error":
        if not a_text(get("code")):
            return "refused"
        return frames.ErrorFrame(f["code"], a_text(get("message")), a_text(get("requestId")))
    if kind == "pong":
        return frames.Pong(a_text(get("requestId")))
    if kind == "going_away":
        delay = get("retryAfterMs")
        return frames.GoingAwayFrame(int(delay) if is_number(delay) and delay >= 0 else None)
    if kind == "welcome":
        expires, size = get("expiresAt"), get("maxMessageSize")
        if (
            a_text(get("peerId")) is None
            or not (expires is None or is_number(expires))
            or not is_number(get("serverTime"))
            or not (is_number(size) and size > 0)
        ):
            return "refused"
        return frames.Welcome(
            f["peerId"], expires, f["serverTime"], int(size), an_object(get("metadata"))
        )
    return None


def client_frame(text: str) -> Any:
    """Read a client's frame plainly: the value, or the code and the id of the refusal."""
    f = read(text)
    if f is None:
        return "malformed_message", None
    request_id = f.get("requestId")
    proper = (
        isinstance(request_id, str)
        and request_id != ""
        and len(request_id.encode("utf-8", "surrogatepass")) <= 128
        and all(c >= " " and not "\x7f" <= c <= "\x9f" for c in request_id)
        and not any("\ud800" <= c <= "\udfff" for c in request_id)
    )
    if f["type"] not in ("subscribe", "unsubscribe", "publish", "send", "ping"):
        return "unknown_type", request_id if proper else None
    if request_id is not None and not proper:
        return "malformed_message", None
    return frames.ClientFrame(
        f["type"],
        request_id,
        f.get("channel", frames.MISSING),
        f.get("to", frames.MISSING),
        f.get("data", frames.MISSING),
        f.get("includeSenderMetadata") is True,
    )


def outcome(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        return parse(text)
    except frames.FrameError as error:
        if parse is frames.parse_server_frame:
            return "refused"
        return error.code, error.request_id


ACK = '{"type":"ack","requestId":"a1-1"}'
NEAR_ACKS = [
    ACK,
    '{"requestId":"a1-1","type":"ack"}',
    '{"type":"ack","requestId":"a1-1"} ',
    ' {"type":"ack","requestId":"a1-1"}',
    '{"type": "ack","requestId":"a1-1"}',
    '{"type":"ack","requestId":"a1-1","x":1}',
    '{"type":"ack","requestId":"a1-1","x":"y"}',
    '{"type":"ack","requestId":"a1-1","type":"pong"}',
    '{"type":"ack","requestId":"a1-1","requestId":"a1-2"}',
    '{"type":"ack","requestId":"a1-1","requestId":null}',
    '{"type":"ack","requestId":"a1\\u002d1"}',
    '{"type":"ack","requestId":"a1-1\\"}',
    '{"type":"ack","requestId":"a1-1\\\\"}',
    '{"type":"ack","requestId":"a1-1"}}',
    '{"type":"ack","requestId":"a1-1"}{"type":"ack","requestId":"a1-1"}',
    '{"type":"ack","requestId":"a1-1\n"}',
    '{"type":"ack","requestId":""}',
    '{"type":"ack","requestId":"',
    '{"type":"ack","requestId":"}',
    '{"type":"ack","requestId":7}',
    '{"type":"ack","requestId":null}',
    '{"type":"ack","requestId":["a1-1"]}',
    '{"type":"ack"}',
    '{"ty\\u0070e":"ack","requestId":"a1-1"}',
    '{"type":"message","channel":"c","from":"b","data":{"type":"ack","requestId":"a1-1"}}',
    '{"data":{"type":"ack","requestId":"a1-1"},"type":"message","channel":"c","from":"b"}',
    '{"type":"ack","requestId":"\\ud800"}',
    '[{"type":"ack","requestId":"a1-1"}]',
    '"{\\"type\\":\\"ack\\",\\"requestId\\":\\"a1-1\\"}"',
]
ODD_NUMBERS = ["-0", "-0.0", "1e999", "-1e999", "1E5", "1e-999", "9" * 19, "-" + "9" * 19, "9" * 30,
               "0.1", "1.7976931348623157e308", "1.7976931348623159e308", "01", "1.", ".5", "+1",
               "9223372036854775807", "9223372036854775808", "18446744073709551615",
               "18446744073709551616", "1" + "0" * 400, "9" * 5000, "NaN", "Infinity"]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types throughout."""
    return bool(one == other) and sorted_repr(one) == sorted_repr(other)


def sorted_repr(value: Any) -> str:
    """Return a representation that does not depend on the order of keys."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{k!r}:{sorted_repr(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(sorted_repr(v) for v in value) + "]"
    if hasattr(value, "__dataclass_fields__"):
        names = [field.name for field in dataclasses.fields(value)]
        fields = {name: getattr(value, name) for name in names}
        return type(value).__name__ + sorted_repr(fields)
    return repr(value)


def check_frame(text: str) -> None:
    for parse, plain in (
        (frames.parse_server_frame, server_frame),
        (frames.parse_client_frame, client_frame),
    ):
        expected = plain(text)
        found = outcome(parse, text)
        assert same(found, expected), (text, found, expected)
        raw = text.encode("utf-8", "surrogatepass")
        assert same(outcome(parse, raw), expected), (raw, expected)


@given(near_frames())
def test_frames_are_what_a_plain_reading_says(text: str) -> None:
    check_frame(text)


@pytest.mark.parametrize("text", NEAR_ACKS)
def test_near_acknowledgements(text: str) -> None:
    check_frame(text)


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_odd_numbers(number: str) -> None:
    for text in (
        f'{{"type":"message","channel":"c","from":"b","data":[{number}]}}',
        f'{{"type":"going_away","retryAfterMs":{number}}}',
        f'{{"type":"welcome","peerId":"a","expiresAt":{number},"serverTime":{number},'
        f'"maxMessageSize":{number}}}',
        f'{{"type":"publish","channel":"c","data":{number}}}',
    ):
        check_frame(text)


@given(near_frames() | st.sampled_from(NEAR_ACKS), ids | st.just("a1-1"))
def test_an_acknowledgement_that_is_recognised_is_one(text: str, request_id: str) -> None:
    if frames.acknowledged(text.encode()) == request_id:
        assert server_frame(text) == frames.Ack(request_id)


@given(ids)
def test_the_usual_acknowledgement_is_recognised(request_id: str) -> None:
    assert frames.acknowledged(frames.build_ack(request_id).encode()) == request_id


@given(st.text() | st.binary())
@example("{")
@example(b"\xff")
@example(b'{"type":"ack","requestId":"\xff"}')
@example(b'{"type":"pong","x":"\xed\xa0\x80"}')
def test_nothing_raises_anything_else(text: str | bytes) -> None:
    for parse in (frames.parse_server_frame, frames.parse_client_frame):
        outcome(parse, text)
    frames.acknowledged(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))


# --- frames that are built ------------------------------------------------------------


@given(names_, names_, json_values, metadata, peers, peers)
def test_what_a_server_builds_parses_back(
    name: str, sender: str, data: Any, meta: Any, joined: Any, left: Any
) -> None:
    for text, expected in (
        (frames.build_message(name, sender, data, meta), Message(name, sender, data, meta)),
        (frames.build_direct(sender, data, meta), Direct(sender, data, meta)),
        (frames.build_presence(name, joined, left), Presence(name, joined, left)),
        (frames.build_ack(name), frames.Ack(name)),
        (frames.build_error(name, sender, name), frames.ErrorFrame(name, sender, name)),
        (frames.build_error(name), frames.ErrorFrame(name)),
        (frames.build_pong(name), frames.Pong(name)),
    ):
        assert same(frames.parse_server_frame(text), expected)
        assert same(frames.parse_server_frame(text.encode()), expected)


@given(
    names_,
    st.none() | st.integers(0, 2**40) | st.floats(0, 1e12),
    st.integers(0, 2**40) | st.floats(0, 1e12),
    st.integers(1, 2**40),
    metadata,
    st.integers(0, 2**40),
)
def test_welcome_and_going_away_parse_back(
    peer_id: str, expires: Any, now: Any, size: int, meta: Any, delay: int
) -> None:
    welcome = frames.Welcome(peer_id, expires, now, size, meta)
    assert same(frames.parse_server_frame(frames.build_welcome(welcome)), welcome)
    going = frames.parse_server_frame(frames.build_going_away(delay))
    assert same(going, frames.GoingAwayFrame(delay))


@given(names_, json_values, st.none() | ids, st.booleans())
def test_what_a_client_builds_parses_back(
    name: str, data: Any, request_id: str | None, flag: bool
) -> None:
    frame = frames.ClientFrame
    for text, expected in (
        (frames.build_publish(name, data, request_id), frame("publish", channel=name, data=data)),
        (frames.build_send(name, data, request_id), frame("send", to=name, data=data)),
        (frames.build_unsubscribe(name, request_id), frame("unsubscribe", channel=name)),
        (frames.build_ping(request_id), frame("ping")),
        (
            frames.build_subscribe(name, request_id, include_sender_metadata=flag),
            frame("subscribe", channel=name, include_sender_metadata=flag),
        ),
    ):
        expected = frame(**{**vars(expected), "request_id": request_id})
        assert same(frames.parse_client_frame(text), expected)
        assert "\n" not in text


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()  # lone surrogates included
    | st.binary(max_size=3)
    | st.just(frames.MISSING),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(anything)
def test_encoding_gives_what_json_gives_or_says_why_not(value: Any) -> None:
    try:
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
        plain.encode()
    except (TypeError, ValueError) as error:
        with pytest.raises(ValueError if isinstance(error, ValueError) else TypeError):
            encode(value)
    else:
        text = encode(value)
        assert same(json.loads(text), json.loads(plain))
        text.encode()


HOSTILE = {
    "brackets": "[" * 500_000,
    "objects": '{"a":' * 200_000,
    "closed": '{"type":"pong","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "digits": '{"type":"pong","n":' + "9" * 1_000_000 + "}",
    "fraction": '{"type":"pong","n":0.' + "9" * 1_000_000 + "}",
    "escapes": '{"type":"pong","s":"' + "\\u00e9" * 170_000 + '"}',
    "quotes": '{"type":"ack","requestId":"' + '\\"' * 500_000 + '"}',
    "spaces": " " * 1_000_000,
    "keys": "{" + ",".join(f'"{n}":0' for n in range(80_000)) + ',"type":"pong"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_frames_take_bounded_time(name: str) -> None:
    text = HOSTILE[name]
    started = time.monotonic()
    for parse in (frames.parse_server_frame, frames.parse_client_frame):
        outcome(parse, text)
        outcome(parse, text.encode())
    frames.acknowledged(text.encode())
    assert time.monotonic() - started < 10


# --- ICE servers ----------------------------------------------------------------------

servers = st.fixed_dictionaries(
    {"urls": st.sampled_from(["stun:a", "turn:b", "turns:c", "http://d", ""]) | json_values},
    optional={"username": texts | json_values, "credential": texts | json_values},
)


@given(st.lists(servers | json_values, max_size=18) | json_values)
def test_ice_servers_are_all_good_or_none(entries: Any) -> None:
    found = welcome_ice_servers({"iceServers": entries})
    if found is not None:
        assert len(found) == len(entries) <= 16
        for server in found:
            assert server.urls
            assert all(url.startswith(("stun", "turn")) and len(url) <= 512 for url in server.urls)
            assert all(s is None or len(s) <= 1024 for s in (server.username, server.credential))


# --- names ----------------------------------------------------------------------------


@given(st.text(max_size=300) | anything)
def test_a_channel_that_is_accepted_can_be_sent(name: Any) -> None:
    try:
        assert names.check_channel(name) == name
    except (TypeError, ValueError):
        assert names.channel_problem(name) is not None or names.is_reserved(name)
    else:
        assert 0 < len(name.encode()) <= 256
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name)
        assert not name.lower().startswith(("_metered/", "_internal/", "_system/"))


@given(st.text(max_size=140) | anything)
def test_a_peer_id_that_is_accepted_is_printable(name: Any) -> None:
    try:
        assert names.check_peer_id(name) == name
    except (TypeError, ValueError):
        assert names.peer_id_problem(name) is not None
    else:
        assert 0 < len(name) <= 128
        assert all(" " <= c <= "~" for c in name)


def plainly_matches(pattern: str, channel: str) -> bool:
    """Match plainly: each way of using up the channel, remembered."""
    places = {0}
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            places = set(range(min(places), len(channel) + 1)) if places else set()
            at += 2
        elif pattern[at] == "*":
            reached = set()
            for place in places:
                reached.add(place)
                while place < len(channel) and channel[place] != "/":
                    place += 1
                    reached.add(place)
            places, at = reached, at + 1
        else:
            if pattern[at] == "\\" and pattern[at + 1 : at + 2] in ("*", "\\"):
                at += 1
            places = {p + 1 for p in places if channel[p : p + 1] == pattern[at]}
            at += 1
    return len(channel) in places


@given(st.text("ab/*\\", max_size=8), st.text("ab/*\\", max_size=8))
@example("a/**", "a/")
@example("***", "a/b")
@example("\\*\\\\", "*\\")
@example("\\", "\\")
@example("a\\b", "a\\b")
def test_patterns_match_as_a_plain_reading_says(pattern: str, channel: str) -> None:
    assert names.matches(pattern, channel) is plainly_matches(pattern, channel)


@given(st.text("ab/*\\", max_size=6), st.text("a/*\\", max_size=5), st.text("ab/*\\", max_size=6))
@example("\\*", "*", "a")
@example("*", "**", "a/b")
def test_a_pattern_that_covers_another_takes_all_that_it_takes(
    pattern: str, other: str, channel: str
) -> None:
    if names.covers(pattern, other) and names.matches(other, channel):
        assert names.matches(pattern, channel)


@pytest.mark.parametrize("pattern", ["*a" * 120 + "b", "**a" * 80 + "b", "*" * 256 + "b"])
def test_patterns_take_bounded_time(pattern: str) -> None:
    started = time.monotonic()
    assert not names.matches(pattern, "a" * 256)
    assert time.monotonic() - started < 5


# --- tokens ---------------------------------------------------------------------------

SECRET = "sk_secret_" + "5" * 48
peer_ids = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=128)
small_metadata = st.none() | st.dictionaries(texts, st.integers() | texts, max_size=3)


@given(
    peer_ids,
    st.integers(0, 2**33),
    st.none() | st.lists(texts, max_size=5).map(tuple),
    st.none() | st.lists(st.sampled_from(ACTIONS), max_size=4).map(tuple),
    small_metadata,
    small_metadata,
)
def test_claims_that_are_signed_parse_back(
    peer_id: str, expires: int, channels: Any, permissions: Any, private: Any, shown: Any
) -> None:
    claims = tokens.Claims(peer_id, expires, channels, permissions, private, shown)
    token = tokens.sign_claims(claims, "sk_id_1", SECRET, issued_at=0)
    assert tokens.key_id(token) == "sk_id_1"
    assert same(tokens.parse_claims(token, SECRET), claims)
    with pytest.raises(ValueError):
        tokens.parse_claims(token, SECRET + "x")
    with pytest.raises(ValueError):
        tokens.parse_claims(token[:-2], SECRET)


def signed(payload: Any, header: Any) -> str:
    """Return a token of any content, properly signed."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    body = part(json.dumps(header).encode()) + b"." + part(json.dumps(payload).encode())
    return (body + b"." + part(hmac.digest(SECRET.encode(), body, hashlib.sha256))).decode()


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("sub", "exp", "iat", "nbf", "aud", "iss", "jti", "channels", "permissions",
             "metadata", "peerMetadata"), json_values | peer_ids
        ),
    )
    | json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "alg": st.sampled_from(["HS256", "HS512", "none", "RS256", 7]),
            "kid": texts | json_values,
            "typ": texts,
            "b64": st.booleans(),
            "crit": json_values,
        },
    )
    | json_values,
)  # fmt: skip
def test_no_token_raises_anything_else(payload: Any, header: Any) -> None:
    token = signed(payload, header)
    try:
        claims = tokens.parse_claims(token, SECRET)
    except ValueError:
        pass
    else:
        assert math.isfinite(claims.expires_at)
        assert names.peer_id_problem(claims.peer_id) is None
    try:
        assert tokens.key_id(token)
    except ValueError:
        pass


@pytest.mark.parametrize("expiry", ["1e999", "1" + "0" * 400, "-1e999", "true", '"1"'])
def test_an_expiry_is_a_time(expiry: str) -> None:
    token = signed(json.loads(f'{{"sub":"a","exp":{expiry}}}'), {"alg": "HS256", "kid": "k"})
    with pytest.raises(ValueError, match=r"expiry|claim"):
        tokens.parse_claims(token, SECRET)


@given(st.text() | st.text('abc.=-_{}"', max_size=40))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(ValueError):
        tokens.parse_claims(text, SECRET)
    try:
        tokens.key_id(text)
    except ValueError:
        pass


# --- addresses ------------------------------------------------------------------------


@given(st.text(characters, max_size=60), st.text(characters, max_size=60))
def test_a_credential_arrives_as_it_is(key: str, token: str) -> None:
    for name, value, url in (
        ("key", key, urls.signalling_url("wss://host", key=key)),
        ("token", token, urls.signalling_url("wss://host", token=token)),
    ):
        assert url.isascii()
        assert url.startswith(f"wss://host/v1?{name}=")
        query = urlsplit(url).query
        assert parse_qsl(query, keep_blank_values=True) == [(name, value)]


@given(
    st.text(max_size=40)
    | anything
    | st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["ws", "wss", "http", "https", "WSS", ""]),
        st.sampled_from(["host", "127.0.0.1", "localhost", "[::1]", "[::1", "a@host", "h:x", ""]),
        st.sampled_from(["", ":1", ":99999", ":0", ":"]),
        st.sampled_from(["", "/", "/v1", "?a=b", "#c", "/../", " "]),
    )
)
def test_an_origin_is_one_or_refused(url: Any) -> None:
    for secure in ("wss", "https"):
        try:
            origin = urls.check_origin(url, secure=secure)
        except (TypeError, ValueError):
            continue
        parts = urlsplit(origin)
        assert parts.scheme == secure or urls.is_loopback(parts.hostname)
        assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
        assert urls.check_origin(origin, secure=secure) == origin


hidden_texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30)


@given(st.text(characters, max_size=20), hidden_texts, st.text(characters, max_size=20))
def test_no_secret_survives_scrubbing(before: str, secret: str, after: str) -> None:
    quoted = quote(secret, safe="")
    assume(quoted not in before + after)
    for text in (
        f"{before} wss://host/v1?key={quoted} {after}",
        f"{before} https://host/x?region=eu&apiKey={quoted}&page=1 {after}",
        f"{before} 'Authorization': 'Bearer {quoted}' {after}",
        f"{before} a=ice-pwd:{quoted}\\r\\n {after}",
        f"{before} https://user:{quoted}@host/ {after}",
    ):
        assert quoted not in secrets.scrub(text)
    secrets.scrub(before + secret + after)


@given(json_values)
def test_scrubbing_leaves_the_shape(value: Any) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return [shape(inner) for inner in value] if isinstance(value, list) else type(value)

    assert shape(secrets.scrubbed(value)) == shape(value)


# --- the bodies of REST calls ---------------------------------------------------------

REST: list[Callable[[Any], Any]] = [
    control.TokenRequest.parse,
    control.Token.parse,
    control.MessageRequest.parse,
    control.parse_peers,
    control.parse_disconnected,
    control.Usage.parse,
    turn.parse_ice_servers,
    turn.CredentialRequest.parse,
    turn.TurnCredential.parse,
    turn.TurnCredentialPage.parse,
]
FIELD_NAMES = [
    "peerId", "channels", "permissions", "expiresInSec", "metadata", "peerMetadata", "token",
    "expiresAt", "data", "from", "peers", "closed", "name", "maxConcurrentConnections",
    "maxMessagesPerPeriod", "overagesAllowed", "overagesEnabled", "appId", "periodStartUnix",
    "periodEndUnix", "concurrentNow", "peakConcurrent", "messagesUsed", "overageMessages",
    "overageConnections", "plan", "urls", "username", "credential", "password", "apiKey",
    "expiryInSeconds", "label", "expired", "pagination", "total_records", "current_page",
    "total_pages", "next_page", "prev_page",
]  # fmt: skip


@pytest.mark.parametrize("parse", REST, ids=lambda parse: parse.__qualname__)
@given(body=st.dictionaries(st.sampled_from(FIELD_NAMES), json_values | texts) | json_values)
def test_rest_bodies_raise_nothing_else(parse: Callable[[Any], Any], body: Any) -> None:
    try:
        parse(body)
    except FieldError:
        pass


# --- the SFU's bodies -----------------------------------------------------------------

descriptions = {
    kind: st.builds(sfu.SessionDescription, st.just(kind), names_) for kind in ("offer", "answer")
}
optional = st.none() | texts
some = {"min_size": 1, "max_size": 3}
tracks = st.builds(sfu.PublishTrack, names_, names_, optional)
BODIES: dict[type, st.SearchStrategy[Any]] = {
    sfu.NewRequest: st.builds(sfu.NewRequest, descriptions["offer"], optional),
    sfu.PublishRequest: st.builds(
        sfu.PublishRequest, st.lists(tracks, **some).map(tuple), descriptions["offer"]
    ),
    sfu.SubscribeRequest: st.builds(
        sfu.SubscribeRequest,
        st.lists(st.builds(sfu.RemoteTrackRef, names_, names_), **some).map(tuple),
    ),
    sfu.RenegotiateRequest: st.builds(sfu.RenegotiateRequest, descriptions["answer"]),
    sfu.CloseRequest: st.builds(
        sfu.CloseRequest, st.lists(names_, **some).map(tuple), descriptions["offer"]
    ),
    sfu.Negotiated: st.builds(sfu.Negotiated, names_, descriptions["answer"]),
    sfu.SubscribeOffer: st.builds(sfu.SubscribeOffer, names_, descriptions["offer"], st.booleans()),
    sfu.Closed: st.builds(sfu.Closed, names_, st.booleans(), descriptions["answer"]),
}


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_bodies_parse_back(kind: Any, data: st.DataObject) -> None:
    value = data.draw(BODIES[kind])
    body = json.loads(json.dumps(value.body()))
    assert kind.parse(body) == value
    assert kind.parse({**body, "another": 1}) == value  # what is new is passed over


def mangled(draw: st.DrawFn, value: Any) -> Any:
    """Return a decoded JSON value with one place in it changed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mangled(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        return [mangled(draw, value[0]), *value[1:]]
    return draw(json_values)


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_bodies_raise_nothing_else(kind: Any, data: st.DataObject) -> None:
    body = data.draw(
        st.composite(lambda draw: mangled(draw, data.draw(BODIES[kind]).body()))() | json_values
    )
    try:
        value = kind.parse(body)
    except FieldError:
        return
    assert kind.parse(value.body()) == value


lists = st.lists(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("sessionId", "trackId", "customTrackName", "trackKind", "mid", "connectionState",
             "metadata"), texts | json_values
        ),
    )
    | json_values,
    max_size=3,
)  # fmt: skip


@given(lists | json_values)
def test_lists_and_errors_raise_nothing_else(body: Any) -> None:
    for parse, build in (
        (sfu.parse_tracks, sfu.tracks_body),
        (sfu.parse_sessions, sfu.sessions_body),
    ):
        try:
            found = parse(body)
        except FieldError:
            continue
        assert parse(build(found, "app")) == found
    sfu.parse_error(body)

"""Test the frames of Realtime Messaging: what is built parses back, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metered_sync.events import Direct, Message, Presence, PresencePeer
from metered_sync.wire import frames

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
metadata = st.none() | st.dictionaries(texts, json_values, max_size=3)


@given(texts, texts, json_values, metadata)
def test_messages_parse_back(channel: str, sender: str, data: Any, meta: Any) -> None:
    text = frames.build_message(channel, sender, data, meta)
    assert frames.parse_server_frame(text) == Message(channel, sender, data, meta)
    text = frames.build_direct(sender, data, meta)
    assert frames.parse_server_frame(text) == Direct(sender, data, meta)


@given(texts, json_values)
def test_requests_parse_back(name: str, data: Any) -> None:
    frame = frames.parse_client_frame(frames.build_publish(name, data, "r1"))
    assert (frame.type, frame.request_id, frame.channel, frame.data) == (
        "publish",
        "r1",
        name,
        data,
    )
    frame = frames.parse_client_frame(frames.build_send(name, data, "r1"))
    assert (frame.type, frame.to, frame.data) == ("send", name, data)


def test_the_other_frames_parse_back() -> None:
    peers = (PresencePeer("a"), PresencePeer("b", {"n": 1}))
    parse = frames.parse_server_frame
    assert parse(frames.build_ack("r")) == frames.Ack("r")
    assert parse(frames.build_error("c", "m", "r")) == frames.ErrorFrame("c", "m", "r")
    assert parse(frames.build_error("c")) == frames.ErrorFrame("c")
    assert parse(frames.build_presence("x", peers)) == Presence("x", peers, ())
    assert parse(frames.build_going_away(50)) == frames.GoingAwayFrame(50)
    assert parse(frames.build_pong("r")) == frames.Pong("r")
    assert parse(frames.build_pong()) == frames.Pong()
    welcome = frames.Welcome("me", 2.0, 1, 65536, {"iceServers": []})
    assert parse(frames.build_welcome(welcome)) == welcome
    subscribe = frames.parse_client_frame(
        frames.build_subscribe("c", "r", include_sender_metadata=True)
    )
    assert subscribe == frames.ClientFrame("subscribe", "r", "c", include_sender_metadata=True)
    assert "includeSenderMetadata" not in frames.build_subscribe("c", "r")
    assert frames.parse_client_frame(frames.build_unsubscribe("c")).request_id is None
    assert frames.parse_client_frame(frames.build_ping("p")).type == "ping"


@given(st.text() | st.binary())
def test_no_input_raises_anything_but_our_error(text: Any) -> None:
    for parse in (frames.parse_server_frame, frames.parse_client_frame):
        try:
            parse(text)
        except frames.FrameError:
            pass


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["welcome", "ack", "error", "message", "direct", "presence",
                                  "going_away", "pong", "publish", "send", "subscribe", "ping"])},
        optional=dict.fromkeys((
            "peerId", "expiresAt", "serverTime", "maxMessageSize", "metadata", "requestId", "code",
            "message", "channel", "from", "data", "fromMetadata", "joined", "left",
            "retryAfterMs", "to", "includeSenderMetadata"), json_values),
    )
)  # fmt: skip
def test_no_fields_raise_anything_but_our_error(fields: dict[str, Any]) -> None:
    for parse in (frames.parse_server_frame, frames.parse_client_frame):
        try:
            parse(json.dumps(fields))
        except frames.FrameError:
            pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "7",
        "{}",
        '{"type": 7}',
        '{"type":"message","channel":"c","from":"a"}',
        '{"type":"presence","channel":"c","joined":[]}',
        '{"type":"presence","channel":"c","joined":[{}],"left":[]}',
        '{"type":"ack"}',
        '{"type":"error","code":""}',
        '{"type":"welcome","peerId":"a","serverTime":1}',
        '{"type":"welcome","peerId":"a","serverTime":1e999,"maxMessageSize":1}',
        '{"type":"welcome","peerId":"a","serverTime":true,"maxMessageSize":1}',
        '{"type":"message","channel":"c","from":"a","data":NaN}',
        b"\xff",
        "[" * 100_000,
        '{"type":"ping","n":' + "9" * 5000 + "}",
    ],
)
def test_malformed_server_frames(text: Any) -> None:
    with pytest.raises(frames.FrameError):
        frames.parse_server_frame(text)


def test_what_servers_may_leave_out_or_add() -> None:
    parse = frames.parse_server_frame
    assert parse('{"type":"from_the_future","x":1}') is None
    assert parse('{"type":"going_away"}') == frames.GoingAwayFrame(None)
    assert parse('{"type":"going_away","retryAfterMs":-1}') == frames.GoingAwayFrame(None)
    message = parse(
        '{"type":"message","channel":"c","from":"a","data":null,"fromMetadata":7,"x":1}'
    )
    assert message == Message("c", "a", None, None)


def test_request_ids() -> None:
    for bad in ("", "x" * 129, 7, [], "\\ud800"):
        text = json.dumps({"type": "ping", "requestId": bad}).replace("\\\\u", "\\u")
        with pytest.raises(frames.FrameError) as caught:
            frames.parse_client_frame(text)
        assert (caught.value.code, caught.value.request_id) == ("malformed_message", None)
    with pytest.raises(frames.FrameError) as caught:
        frames.parse_client_frame('{"type":"dance","requestId":"r"}')
    assert (caught.value.code, caught.value.request_id) == ("unknown_type", "r")


def test_null_is_data_and_missing_is_not() -> None:
    null = frames.parse_client_frame('{"type":"publish","channel":"c","data":null}')
    assert null.data is None
    assert frames.parse_client_frame('{"type":"publish","channel":"c"}').data is frames.MISSING


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"a": "\udfff"}])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="data"):
        frames.build_publish("c", value, "r")


def test_what_json_has_no_form_for_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="bytes"):
        frames.build_publish("c", b"raw", "r")
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(ValueError, match="JSON"):
        frames.build_publish("c", circular, "r")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        frames.build_publish("c", deep, "r")


def test_text_is_not_inflated() -> None:
    assert "日本語" in frames.build_publish("c", "日本語", "r")


def test_an_acknowledgement_is_recognised_without_parsing() -> None:
    assert frames.acknowledged(frames.build_ack("ab-1").encode()) == "ab-1"
    for other in (
        '{"type":"ack", "requestId":"ab-1"}',
        '{"requestId":"ab-1","type":"ack"}',
        '{"type":"error","requestId":"ab-1","code":"x"}',
        '{"type":"ack","requestId":"ab-1","code":"x"}',
        '{"type":"ack","requestId":"ab-1"} ',
        '{"type":"ack","requestId":"',
    ):
        assert frames.acknowledged(other.encode()) != "ab-1"


def test_lone_surrogates_and_large_numbers_are_read() -> None:
    text = b'{"type":"direct","from":"a","data":["\\ud800",123456789012345678901234567890]}'
    assert frames.parse_server_frame(text) == Direct(
        "a", ["\ud800", 123456789012345678901234567890]
    )

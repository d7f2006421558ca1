"""What this library's client and a published one tell each other through the local cloud."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from metered_sync import (
    Direct,
    Message,
    OversizedPayloadError,
    Presence,
    PresencePeer,
    ServerRequestError,
    SignallingClient,
    SignallingConnectError,
)
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.scenarios.interop.parties import Driver, Party, PartyError

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1.5,
    1e300,
    2**53 - 1,
    "",
    'a "quoted" \\ back\nslash\x00\x1f\x7f\x85',
    "日本語 🎉 é \u2028\u2029",
    [],
    {},
    [[[]], {"": {"a": [1, None, "x"]}}],
    {"type": "ack", "requestId": "r1", "__proto__": {"x": 1}, "constructor": None},
    "x" * 50_000,
    "é" * 10_000,  # six bytes each from the Python client
]


def ours(cloud: LocalCloud, peer_id: str | None = None, **claims: Any) -> SignallingClient:
    options = cloud.client_options() if peer_id is None else cloud.token_options(peer_id, **claims)
    return SignallingClient(**options)


def theirs(driver: Driver, cloud: LocalCloud, peer_id: str | None = None, **claims: Any) -> Party:
    options = cloud.client_options() if peer_id is None else cloud.token_options(peer_id, **claims)
    return driver.party(**options)


# --- messages -------------------------------------------------------------------------


def test_published_messages_go_both_ways(published: Driver, shared_cloud: LocalCloud) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        inbox = us.subscribe("both/ways")
        them.subscribe("both/ways")
        for value in VALUES:
            them.publish("both/ways", value)
            assert inbox.get(timeout=20) == Message("both/ways", them.peer_id, value)
            us.publish("both/ways", value)
            assert them.next("message") == {
                "event": "message",
                "channel": "both/ways",
                "from": us.peer_id,
                "data": value,
                "metadata": None,
            }
        assert len(inbox) == 0
        assert not them.had("message")  # nobody hears himself


def test_direct_messages_go_both_ways(published: Driver, shared_cloud: LocalCloud) -> None:
    name = f"direct-{published.language}"
    with (
        ours(shared_cloud, f"our-{name}", peer_metadata={"who": "we"}) as us,
        theirs(published, shared_cloud, f"their-{name}", peer_metadata={"who": "they"}) as them,
        us.events(Direct) as inbox,
    ):
        for value in VALUES:
            them.send(f"our-{name}", value)
            assert inbox.get(timeout=20) == Direct(f"their-{name}", value, {"who": "they"})
            us.send(f"their-{name}", value)
            assert them.next("direct") == {
                "event": "direct",
                "from": f"our-{name}",
                "data": value,
                "metadata": {"who": "we"},
            }


@pytest.mark.parametrize(
    "channel", ["日本語/ñ 🎉", "a b%20c?d#e&f=g", "x" * 256, '"\\"', "é" * 128]
)
def test_names_of_channels_are_the_same(
    published: Driver, shared_cloud: LocalCloud, channel: str
) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        inbox = us.subscribe(channel)
        them.subscribe(channel)
        them.publish(channel, 1)
        us.publish(channel, 2)
        assert inbox.get(timeout=20).channel == them.next("message")["channel"] == channel


def test_messages_stay_in_order(published: Driver, shared_cloud: LocalCloud) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        inbox = us.subscribe("order")
        them.subscribe("order")
        them.burst("order", 500)
        assert [inbox.get(timeout=20).data for _ in range(500)] == list(range(500))
        for number in range(100):
            us.publish("order", number)
        assert [them.next("message")["data"] for _ in range(100)] == list(range(100))


def test_patterns_of_channels(published: Driver, shared_cloud: LocalCloud) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        inbox = us.subscribe("devices/*/events")
        them.subscribe("fleet/**")
        them.publish("devices/7/state", 0)
        them.publish("devices/7/events", 1)
        assert inbox.get(timeout=20) == Message("devices/7/events", them.peer_id, 1)
        us.publish("fleet", 0)
        us.publish("fleet/a/b", 1)
        assert them.next("message")["channel"] == "fleet/a/b"


def test_metadata_of_senders_comes_to_those_who_ask(
    published: Driver, shared_cloud: LocalCloud
) -> None:
    name = f"meta-{published.language}"
    with (
        ours(shared_cloud, f"our-{name}", peer_metadata={"n": 1}) as us,
        theirs(published, shared_cloud, f"their-{name}", peer_metadata={"n": [2]}) as them,
    ):
        for ask in (False, True):
            channel = f"{name}/{ask}"
            inbox = us.subscribe(channel, include_sender_metadata=ask)
            them.subscribe(channel, metadata=ask)
            us.publish(channel, 1)
            them.publish(channel, 1)
            assert inbox.get(timeout=20).sender_metadata == ({"n": [2]} if ask else None)
            assert them.next("message")["metadata"] == ({"n": 1} if ask else None)


def test_no_more_comes_after_unsubscribing(published: Driver, shared_cloud: LocalCloud) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        them.subscribe("gone")
        them.subscribe("stays")
        them.unsubscribe("gone")
        them.unsubscribe("gone")  # again, and acknowledged
        us.publish("gone", 1)
        us.publish("stays", 2)
        assert them.next("message")["channel"] == "stays"


# --- presence -------------------------------------------------------------------------


def test_presence_is_the_same_on_both_sides(published: Driver, shared_cloud: LocalCloud) -> None:
    name = f"presence-{published.language}"
    us_there, them_here = {"peerId": "us", "metadata": {"n": 1}}, PresencePeer("them", {"n": 2})
    with (
        ours(shared_cloud, "us", peer_metadata={"n": 1}) as us,
        theirs(published, shared_cloud, "them", peer_metadata={"n": 2}) as them,
        us.events(Presence) as seen,
    ):
        us.subscribe(name)
        assert seen.get(timeout=20) == Presence(name, (), ())  # alone
        them.subscribe(name)
        assert seen.get(timeout=20) == Presence(name, (them_here,), ())
        snapshot = {"event": "presence", "channel": name, "joined": [us_there], "left": []}
        assert them.next("presence") == snapshot
        them.subscribe(name)  # again: the whole snapshot, and nothing new to us
        assert them.next("presence") == snapshot
        them.unsubscribe(name)
        assert seen.get(timeout=20) == Presence(name, (), (them_here,))
        them.subscribe(name)
        assert them.next("presence") == snapshot
        assert seen.get(timeout=20) == Presence(name, (them_here,), ())
        us.unsubscribe(name)
        assert them.next("presence") == snapshot | {"joined": [], "left": [us_there]}
        us.subscribe(name)
        assert them.next("presence") == snapshot
        assert seen.get(timeout=20) == Presence(name, (them_here,), ())
        them.close()
        assert seen.get(timeout=20) == Presence(name, (), (them_here,))


def test_a_peer_with_a_client_of_each_kind_is_one_peer(
    published: Driver, shared_cloud: LocalCloud
) -> None:
    name = f"twin-{published.language}"
    with (
        ours(shared_cloud, name) as us,
        theirs(published, shared_cloud, name) as them,
        ours(shared_cloud) as watcher,
        us.events(Direct) as direct,
        watcher.events(Presence) as seen,
    ):
        watcher.subscribe(name)
        assert seen.get(timeout=20) == Presence(name, (), ())
        inbox = us.subscribe(name)
        assert seen.get(timeout=20) == Presence(name, (PresencePeer(name),), ())
        them.subscribe(name)
        watcher.send(name, "to both")
        assert direct.get(timeout=20).data == them.next("direct")["data"] == "to both"
        them.publish(name, 1)
        us.publish(name, 2)
        assert inbox.get(timeout=20).data == 1
        assert them.next("message")["data"] == 2
        us.close()
        them.publish(name, 3)  # one is still there
        assert len(seen) == len(inbox) == 0
        assert not them.had("message")
        them.close()
        assert seen.get(timeout=20) == Presence(name, (), (PresencePeer(name),))


# --- what the server refuses ----------------------------------------------------------

NARROW = {"channels": ["mine/*"], "permissions": ["publish"]}
REFUSALS: list[tuple[dict[str, Any], Callable[[Any], None], str]] = [
    (NARROW, lambda client: client.publish("yours/a", 1), "channel_not_authorized"),
    (NARROW, lambda client: client.publish("mine/a/b", 1), "channel_not_authorized"),
    (NARROW, lambda client: client.subscribe("mine/a"), "action_not_permitted"),
    (NARROW, lambda client: client.send("somebody", 1), "action_not_permitted"),
    ({}, lambda client: client.send("nobody", 1), "peer_not_found"),
]


@pytest.mark.parametrize(("claims", "call", "code"), REFUSALS)
def test_refusals_have_the_same_code(
    published: Driver,
    shared_cloud: LocalCloud,
    claims: dict[str, Any],
    call: Callable[[Any], None],
    code: str,
) -> None:
    with ours(shared_cloud, "a", **claims) as us, pytest.raises(ServerRequestError) as here:
        call(us)
    with theirs(published, shared_cloud, "a", **claims) as them:
        with pytest.raises(PartyError) as there:
            call(them)
        assert (there.value.name, there.value.code) == ("ServerRequestError", code)
        assert them.state == "connected"
    assert here.value.code == code


def test_what_only_this_client_refuses_by_itself(
    published: Driver, shared_cloud: LocalCloud
) -> None:
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        for channel in ("_metered/x", "_Internal/x", "_SYSTEM/x"):
            with pytest.raises(ValueError, match="reserves"):
                us.publish(channel, 1)
            with pytest.raises(PartyError) as there:
                them.publish(channel, 1)
            assert there.value.code == "channel_reserved"


def test_the_limit_of_channels(published: Driver, cloud: LocalCloud) -> None:
    with theirs(published, cloud) as them:
        for number in range(100):
            them.subscribe(f"{number}")
        with pytest.raises(PartyError) as there:
            them.subscribe("one too many")
        assert there.value.code == "channel_limit_exceeded"


def test_frames_that_are_too_big(published: Driver, shared_cloud: LocalCloud) -> None:
    # The published clients measure the data alone, if that; the service closes (1009).
    with ours(shared_cloud) as us, theirs(published, shared_cloud) as them:
        inbox = us.subscribe("big")
        them.subscribe("big")
        with pytest.raises(OversizedPayloadError):
            us.publish("big", "x" * 65_530)
        assert us.state == "connected"
        with pytest.raises(PartyError) as there:
            them.publish("big", "x" * 65_530)
        assert there.value.name == "DisconnectedError"
        assert them.next("disconnected")["code"] == 1009
        them.next("connected", isReconnect=True)
        them.publish("big", "x" * 65_400)
        assert len(inbox.get(timeout=20).data) == 65_400


def test_a_quota_that_is_used_up(published: Driver) -> None:
    with LocalCloud(max_messages=2) as cloud, ours(cloud) as us, theirs(published, cloud) as them:
        inbox = us.subscribe("quota")
        them.subscribe("quota")
        us.publish("quota", 1)
        them.publish("quota", 2)
        with pytest.raises(ServerRequestError) as here:
            us.publish("quota", 3)
        with pytest.raises(PartyError) as there:
            them.publish("quota", 3)
        assert here.value.code == there.value.code == "over_message_quota"
        assert (inbox.get(timeout=20).data, them.next("message")["data"]) == (2, 1)
        assert us.state == them.state == "connected"
        with pytest.raises(SignallingConnectError) as refused:
            ours(cloud).connect()
        with pytest.raises(PartyError) as refused_there:
            theirs(published, cloud).connect()
        assert refused.value.close_code == refused_there.value.code == 4010


def test_too_many_attempts_to_connect(published: Driver) -> None:
    with LocalCloud() as cloud:
        for _ in range(60):
            with ours(cloud):
                pass
        with pytest.raises(SignallingConnectError) as here:
            ours(cloud).connect()
        with pytest.raises(PartyError) as there:
            theirs(published, cloud).connect()
        assert here.value.close_code == 429
        assert there.value.code == {"python": 429, "javascript": 1006}[published.language]


# --- the control plane ----------------------------------------------------------------


def test_the_control_plane_reaches_both(published: Driver, shared_cloud: LocalCloud) -> None:
    channel, name = f"control/{published.language} é", f"them-{published.language}"
    with (
        shared_cloud.control_plane() as control,
        ours(shared_cloud, "us") as us,
        theirs(published, shared_cloud, name, peer_metadata={"n": 1}) as them,
    ):
        inbox = us.subscribe(channel, include_sender_metadata=True)
        them.subscribe(channel, metadata=True)
        assert control.peers(channel) == {"us": None, name: {"n": 1}}
        control.publish(channel, VALUES[:8], sender="backend", metadata={"role": "boss"})
        assert inbox.get(timeout=20) == Message(channel, "backend", VALUES[:8], {"role": "boss"})
        assert them.next("message") == {
            "event": "message",
            "channel": channel,
            "from": "backend",
            "data": VALUES[:8],
            "metadata": {"role": "boss"},
        }
        assert control.disconnect(name) == 1
        gone = them.next("disconnected")
        assert (gone["code"], gone["willReconnect"]) == (4020, False)
        wait_until(lambda: control.peers(channel) == {"us": None})


def test_refused_connections_have_the_same_code(
    published: Driver, shared_cloud: LocalCloud
) -> None:
    def token(secret: str, expires_in: float) -> str:
        claims = {"sub": "a", "exp": int(time.time() + expires_in)}
        header = {"kid": shared_cloud.key_id}
        return jwt.encode(claims, secret, algorithm="HS256", headers=header)

    # A refused upgrade has no code under Node: its WebSocket knows 1006 alone.
    refused = {"python": 401, "javascript": 1006}[published.language]
    url = shared_cloud.url
    for options, here_code, there_code in (
        ({"api_key": "pk_live_unknown", "url": url}, 4001, 4001),
        ({"token_provider": lambda: "gar.ba.ge", "url": url}, 401, refused),
        ({"token_provider": lambda: token("x" * 40, 60), "url": url}, 4001, 4001),
        ({"token_provider": lambda: token(shared_cloud.key_secret, -60), "url": url}, 4002, 4002),
        ({"api_key": "pk_live_x", "url": "ws://127.0.0.1:9"}, 1006, 1006),
    ):
        with pytest.raises(SignallingConnectError) as here:
            SignallingClient(**options).connect()
        assert here.value.close_code == here_code
        them = published.party(**options)
        with pytest.raises(PartyError) as there:
            them.connect()
        assert (there.value.name, there.value.code) == ("SignallingConnectError", there_code)
        them.close()


def test_the_welcome_says_the_same(published: Driver, shared_cloud: LocalCloud) -> None:
    servers = [
        {"urls": ["turn:x:80", "turns:x:443"], "username": "u", "credential": "c"},
        {"urls": "stun:x:80"},
    ]
    options = {"ttl": 100, "metadata": {"iceServers": servers, "other": 1}}
    with (
        ours(shared_cloud, "welcome", **options) as us,
        theirs(published, shared_cloud, "welcome", **options) as them,
    ):
        connected = them.next("connected")
        assert connected["peerId"] == us.peer_id == "welcome"
        assert us.expires_at is not None
        assert abs(connected["expiresAt"] - us.expires_at) <= 2
        assert connected["maxMessageSize"] == us.max_message_size == 65536
        assert us.ice_servers is not None
        assert connected["iceServers"] == len(us.ice_servers) == 2
        assert abs(connected["serverTime"] - time.time()) < 60
    with theirs(published, shared_cloud) as them:
        connected = them.next("connected")
        assert (connected["expiresAt"], connected["iceServers"]) == (None, None)
        assert connected["isReconnect"] is False

"""Test that each object tells of the events it emits, and refuses what would never be called."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

import metered_sync
from metered_sync import (
    Data,
    DataChannelOpened,
    DCMessage,
    Direct,
    Event,
    Message,
    MeteredPeer,
    PeerJoined,
    Presence,
    Republished,
    SfuClient,
    SignallingClient,
    StateChange,
    Track,
    TrackEnded,
)
from metered_sync import events as events_module
from metered_sync._observable import EMITTED
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource
from tests.conftest import wait_until

ALL = [
    kind
    for kind in vars(events_module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
]
OBSERVABLE = [name for name in EMITTED if name != "EncodedSource"]
"""The objects that are listened to: an encoded source has a queue of its own."""


@pytest.fixture(scope="module")
def objects(shared_cloud: LocalCloud) -> Iterator[dict[str, Any]]:
    """One object of each kind, a member and a data channel among them."""
    options = {"ice_servers": []}
    with (
        SignallingClient(**shared_cloud.client_options()) as client,
        SfuClient(**shared_cloud.sfu_options()) as sfu,
        MeteredPeer(**shared_cloud.client_options(), **options) as peer,
        MeteredPeer(**shared_cloud.client_options(), **options) as other,
        ToneSource() as tone,
    ):
        peer.join("observable")
        other.join("observable")
        remote = peer.wait_for_peer(timeout=20)
        channel = remote.create_data_channel("observable")
        other.add_track(tone)
        track = remote.track("audio", timeout=20)
        found: dict[str, Any] = {
            type(one).__name__: one for one in (client, sfu, peer, remote, channel, track)
        }
        assert set(found) == set(OBSERVABLE)
        yield found


def listening(one: Any) -> dict[str, Callable[[Any], Any]]:
    """Every way to listen on an object."""
    return {
        "on": lambda kind: one.on(kind, print),
        "on as a decorator": lambda kind: one.on(kind),
        "once": lambda kind: one.once(kind, print),
        "once as a decorator": lambda kind: one.once(kind),
        "off": lambda kind: one.off(kind),
        "events": lambda kind: one.events(kind).close(),
        "events, several": lambda kind: one.events(Event, kind).close(),
        "wait_for": lambda kind: one.wait_for(kind, timeout=0),
    }


def test_every_event_is_some_objects() -> None:
    assert {kind.__name__ for kind in ALL} == {name for names in EMITTED.values() for name in names}


@pytest.mark.parametrize("name", OBSERVABLE)
def test_an_object_takes_the_events_that_it_emits(objects: dict[str, Any], name: str) -> None:
    one = objects[name]
    for kind in (Event, *(k for k in ALL if k.__name__ in EMITTED[name])):
        for way, listen in listening(one).items():
            if way == "wait_for":
                with pytest.raises(metered_sync.MeteredTimeoutError):
                    listen(kind)
            else:
                listen(kind)
        one.off(kind)


@pytest.mark.parametrize("name", OBSERVABLE)
def test_an_object_refuses_the_events_of_others(objects: dict[str, Any], name: str) -> None:
    for kind in (k for k in ALL if k.__name__ not in EMITTED[name]):
        owners = [owner for owner, names in EMITTED.items() if kind.__name__ in names]
        for listen in listening(objects[name]).values():
            with pytest.raises(TypeError) as caught:
                listen(kind)
            assert str(caught.value).startswith(f"a {name} never emits {kind.__name__}, which is")
            assert f"an event of {', '.join(owners)}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "way"),
    [
        ("MeteredPeer", Track, "take a member from wait_for_peer()"),
        ("MeteredPeer", DataChannelOpened, "take a member from wait_for_peer()"),
        ("MeteredPeer", Message, "here, listen to Data"),
        ("MeteredPeer", Presence, "here, listen to PeerJoined and PeerLeft"),
        ("MeteredPeer", DCMessage, "remote.create_data_channel"),
        ("SignallingClient", PeerJoined, "here, listen to Presence; or join a room with"),
        ("SignallingClient", Data, "here, listen to Message and Direct"),
        ("SignallingClient", Track, "take a member"),
        ("RemotePeer", Data, "by sender_peer_id"),
        ("RemotePeer", Direct, "make a SignallingClient"),
        ("DataChannel", Message, "here, listen to DCMessage"),
        ("DataChannel", StateChange, "here, listen to DCOpen and DCClose"),
        ("SfuClient", Track, "take a member"),
        ("MeteredPeer", TrackEnded, "RemotePeer, RemoteTrack, SfuClient: take"),
        ("RemotePeer", Republished, "connect with an SfuClient"),
    ],
)
def test_the_way_to_an_event(objects: dict[str, Any], name: str, kind: Any, way: str) -> None:
    with pytest.raises(TypeError) as caught:
        objects[name].on(kind)
    assert way in str(caught.value)


def test_what_is_no_event_of_the_library(objects: dict[str, Any]) -> None:
    class MyMessage(Message):
        pass

    for one in objects.values():
        for listen in listening(one).values():
            with pytest.raises(TypeError, match="nothing emits MyMessage events"):
                listen(MyMessage)
            for wrong in ("message", Message("c", "p", 1), int, None):
                with pytest.raises(TypeError, match="is not a class of events"):
                    listen(wrong)


def test_an_object_of_a_derived_class(shared_cloud: LocalCloud) -> None:
    class Mine(SignallingClient):
        pass

    with Mine(**shared_cloud.client_options()) as one:
        one.on(Message, print)
        with pytest.raises(TypeError, match="a SignallingClient never emits Track"):
            one.on(Track, print)


# --- what is called -------------------------------------------------------------------


def test_a_callback_that_takes_no_event_is_refused_where_it_is_registered(
    shared_cloud: LocalCloud,
) -> None:
    def none() -> None: ...

    with SignallingClient(**shared_cloud.client_options()) as client:
        untyped: Any = client
        refusals: list[Callable[[], object]] = [
            lambda: untyped.on(Message, none),
            lambda: untyped.on(Message)(none),
            lambda: untyped.once(Message, none),
            lambda: untyped.once(Message)(none),
            lambda: setattr(untyped, "on_error", lambda event: None),
            lambda: untyped.wait_for(Message, where=none, timeout=0),
        ]
        for refused in refusals:
            with pytest.raises(TypeError, match=r"is called with .* here, and cannot be"):
                refused()
        untyped.on(Message, print)


async def asynchronous(*args: Any) -> None:
    pass


async def asynchronous_generator(*args: Any) -> Any:
    yield 1


def generator(*args: Any) -> Any:
    yield 1


class AsyncCallable:
    async def __call__(self, *args: Any) -> None:
        pass

    async def method(self, *args: Any) -> None:
        pass

    @staticmethod
    async def static(*args: Any) -> None:
        pass

    def lazy(self, *args: Any) -> Any:
        yield 1


class GeneratorCallable:
    def __call__(self, *args: Any) -> Any:
        yield 1


REFUSED = [
    asynchronous,
    asynchronous_generator,
    generator,
    functools.partial(asynchronous, 1),
    functools.partial(functools.partial(generator, 1), 2),
    AsyncCallable(),
    AsyncCallable().method,
    AsyncCallable.static,
    AsyncCallable().lazy,
    functools.partial(AsyncCallable(), 1),
    functools.partial(AsyncCallable().method, 1),
    GeneratorCallable(),
    AsyncMock(),
]


class PlainCallable:
    def __init__(self, *args: Any) -> None:
        pass

    def __call__(self, *args: Any) -> None:
        pass


@functools.wraps(asynchronous)
def wrapper(*args: Any) -> None:
    """Run a coroutine: its signature is the other's, but it is a plain function."""


TAKEN = [
    print,
    wrapper,
    [].append,
    PlainCallable,
    PlainCallable(),
    PlainCallable().__call__,
    functools.partial(print, 1),
    Mock(),
]


def slots(client: SignallingClient) -> dict[str, Callable[[Any], Any]]:
    """Every place of a messaging client that takes a function."""

    def set_on_error(function: Any) -> None:
        client.on_error = function

    def add_done_callback(function: Any) -> None:
        client.publish_nowait("c", 1).add_done_callback(function)

    return {
        "on": lambda fn: client.on(Message, fn),
        "on as a decorator": lambda fn: client.on(Message)(fn),
        "once": lambda fn: client.once(Message, fn),
        "once as a decorator": lambda fn: client.once(Message)(fn),
        "where": lambda fn: client.wait_for(Message, where=fn, timeout=0),
        "on_error": set_on_error,
        "add_done_callback": add_done_callback,
        "token_provider": lambda fn: SignallingClient(token_provider=fn),
        "token_provider of a peer": lambda fn: MeteredPeer(token_provider=fn),
    }


@pytest.mark.parametrize("function", REFUSED)
def test_functions_that_run_nothing_are_refused(objects: dict[str, Any], function: Any) -> None:
    for slot, use in slots(objects["SignallingClient"]).items():
        with pytest.raises(TypeError, match="which nothing here runs: pass a plain function"):
            use(function)
        with pytest.raises(TypeError, match="callable"):
            use([7])
        assert objects["SignallingClient"].on_error is None, slot
    for name in ("RemotePeer", "RemoteTrack", "DataChannel"):
        with pytest.raises(TypeError, match="which nothing here runs"):
            objects[name].on(Event, function)


@pytest.mark.parametrize("function", TAKEN)
def test_plain_functions_are_taken(objects: dict[str, Any], function: Any) -> None:
    client = objects["SignallingClient"]
    for slot, use in slots(client).items():
        if slot == "where":
            with pytest.raises(metered_sync.MeteredTimeoutError):
                use(function)
        else:
            use(function)
    client.off(Message)
    client.on_error = None
    client.flush()


def test_what_a_callback_returns_unrun_is_told(objects: dict[str, Any], log: io.StringIO) -> None:
    client = objects["SignallingClient"]
    told: queue.Queue[Any] = queue.Queue()
    ran = threading.Event()
    client.on_error = lambda event, error: told.put(error)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.on(Direct, lambda event: asynchronous())
        client.on(Direct, lambda event: generator())
        client.on(Direct, lambda event: asynchronous_generator())
        client.on(Direct, lambda event: ran.set())
        client.send(client.peer_id, 1)
        errors = [told.get(timeout=20) for _ in range(3)]
    assert ran.wait(20)
    over = threading.Event()

    def speak() -> None:
        while not over.wait(0.05):  # (only what comes during the wait counts)
            client.send(client.peer_id, 1)

    speaking = threading.Thread(target=speak)
    with client.events(Direct) as events:
        speaking.start()
        with pytest.raises(TypeError, match="where: it returned a coroutine"):
            client.wait_for(Direct, where=lambda event: asynchronous(), timeout=20)
        over.set()
        events.get(timeout=20)
    speaking.join(20)
    for error, kind in zip(errors, ("a coroutine", "a generator", "an asynchronous"), strict=True):
        assert isinstance(error, TypeError)
        assert str(error).startswith(f"it returned {kind}")
    client.on_error = lambda event, error: asynchronous()
    client.send(client.peer_id, 1)
    wait_until(lambda: "on_error, told of a callback" in log.getvalue())
    client.off(Direct)
    client.on_error = None


def test_none_of_them_is_pickled_or_copied(objects: dict[str, Any]) -> None:
    for name, one in objects.items():
        for call in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"{name} cannot be pickled or copied: .* new"):
                call(one)

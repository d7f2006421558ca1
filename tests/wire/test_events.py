"""Test the values that events are: frozen, droppable or not, and secrets unseen."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from metered_sync.wire import events, media_events
from metered_sync.wire.events import Event, IceServer

KINDS = [
    kind
    for module in (events, media_events)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]


def test_messages_may_be_dropped_and_lifecycle_events_not() -> None:
    assert {kind.__name__ for kind in KINDS if kind.droppable} == {
        "Message",
        "Direct",
        "Presence",
        "Data",
        "DCMessage",
        "KeyFrameWanted",
        "BitrateWanted",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen(kind: type[Event]) -> None:
    values = {field.name: None for field in dataclasses.fields(kind)}
    event = kind(**values)
    for name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, 1)


def test_an_ice_server_hides_its_credential() -> None:
    server = IceServer(("turn:x", "turn:y"), "HUSH", "HUSH")
    assert repr(server) == "IceServer(urls=('turn:x', 'turn:y'), username=…, credential=…)"
    assert repr(IceServer(("stun:x",))) == "IceServer(urls=('stun:x',))"


def test_an_ice_server_as_json_has_it() -> None:
    assert IceServer(("stun:x",)).as_dict() == {"urls": "stun:x"}
    assert IceServer(("turn:x", "turn:y"), "u", "c").as_dict() == {
        "urls": ["turn:x", "turn:y"],
        "username": "u",
        "credential": "c",
    }

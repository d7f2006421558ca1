"""Run cells with callbacks again, in a real kernel: which functions are called then."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from metered_sync.bridge.cells import CellFunction, cell_id
from tests.support.front_end import FrontEnd, front_end

SETUP = """
import logging, threading
from metered_sync import Message, Outage, RemoteTrack, SignallingClient
from metered_sync.engine.webrtc.incoming import IncomingTrack

class Notes(logging.Handler):
    def emit(self, record):
        noted.append(record.getMessage())

called, noted = [], []
logging.getLogger("metered_sync").addHandler(Notes())

def make(name):
    def made(event):
        called.append(name)
    return made

class Bot:
    def __init__(self, name):
        self.name = name
    def answer(self, event):
        called.append(self.name)

def told():
    called.clear()
    done = threading.Event()
    client.once(Outage, lambda event: done.set())
    client._hub.emit(Message("room", "ann", 1))
    client._hub.emit(Outage(1.0))
    assert done.wait(20)
    return sorted(called)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    with front_end(tmp_path_factory.mktemp("kernel"), SETUP) as face:
        yield face


@pytest.fixture
def face(kernel: FrontEnd) -> FrontEnd:
    """A front end whose kernel has a client without callbacks."""
    kernel.run("client = SignallingClient(api_key='pk_live_x'); noted.clear()")
    return kernel


def told(face: FrontEnd) -> list[str]:
    """Return the names that the functions have noted which are called for a message."""
    names: list[str] = eval(face.run("print(told())"))
    return names


def warned(face: FrontEnd) -> int:
    return int(face.run("print(len(noted))"))


def decorated(name: str, function: str = "show", lead: str = "") -> str:
    return f"{lead}@client.on(Message)\ndef {function}(event):\n    called.append({name!r})"


@pytest.mark.parametrize("cell", ["c1", ""])
def test_a_cell_that_runs_again_registers_once(face: FrontEnd, cell: str) -> None:
    for _ in range(3):
        face.run(decorated("one"), cell)
    assert told(face) == ["one"]
    face.run(decorated("two"), cell)  # with another text
    assert told(face) == ["two"]
    assert warned(face) == (0 if cell else 1)


def test_a_cell_may_move_its_functions(face: FrontEnd) -> None:
    face.run(decorated("one"), "c1")
    face.run(decorated("two", lead="\n# more\n"), "c1")
    assert told(face) == ["two"]


def test_functions_of_other_cells_stay(face: FrontEnd) -> None:
    face.run(decorated("one", "_"), "c1")
    face.run(decorated("two", "_"), "c2")
    face.run(decorated("two", "_"), "c2")
    assert told(face) == ["one", "two"]
    assert not warned(face)


def test_other_names_stay_where_cells_are_not_known(face: FrontEnd) -> None:
    face.run(decorated("one", "show"))
    face.run(decorated("two", "note"))
    face.run(decorated("three", "show", lead="# elsewhere\n\n"))
    face.run("client.on(Message, make('four'))")
    face.run("client.on(Message, make('five'))")
    assert told(face) == ["five", "four", "one", "three", "two"]
    assert not warned(face)


@pytest.mark.parametrize("cell", ["c1", ""])
def test_all_of_one_run_stay(face: FrontEnd, cell: str) -> None:
    many = (
        "for name in ('one', 'two'):\n    client.on(Message, make(name))\n"
        "client.on(Message, make('three'))\n"
        "client.on(Message, make('four'))\n"
        "@client.on(Message)\ndef _(event):\n    called.append('five')\n"
        "@client.on(Message)\ndef _(event):\n    called.append('six')\n"
    )
    face.run(many, cell)
    assert told(face) == ["five", "four", "one", "six", "three", "two"]
    face.run(many, cell)
    assert told(face) == ["five", "four", "one", "six", "three", "two"]


@pytest.mark.parametrize("cell", ["c1", ""])
def test_methods_of_objects_that_are_made_again(face: FrontEnd, cell: str) -> None:
    for _ in range(2):
        face.run("bot = Bot('ann'); client.on(Message, bot.answer)", cell)
    face.run("other = Bot('bob'); client.on(Message, other.answer)", cell and "c2")
    assert told(face) == ["ann", "bob"]


def test_one_event_and_all_events_are_two_things(face: FrontEnd) -> None:
    for _ in range(2):
        face.run("client.once(Message, make('once'))\nclient.on(Message, make('on'))", "c1")
    assert told(face) == ["on", "once"]
    assert told(face) == ["on"]


def test_functions_for_frames(face: FrontEnd) -> None:
    face.run("track = RemoteTrack(IncomingTrack('video', id='x'), None); handles = []")
    for _ in range(2):
        face.run("@track.on_frame\ndef show(frame): ...\nhandles.append(show)", "c1")
    assert face.run("print([handle.active for handle in handles])") == "[False, True]"


def test_outside_of_notebooks_every_function_is_called() -> None:
    def function() -> None: ...

    first, second = CellFunction(function), CellFunction(function)
    assert first.line is None
    assert not second.replaces(first)


def test_the_running_cell_is_known_where_the_front_end_tells_it() -> None:
    def shell(parent: Any) -> Any:
        return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: parent))

    assert cell_id(shell({"metadata": {"cellId": "c1"}})) == "c1"
    assert cell_id(shell({"metadata": {}})) is None
    assert cell_id(shell({})) is None
    assert cell_id(SimpleNamespace(kernel=object())) is None
    assert cell_id(SimpleNamespace()) is None

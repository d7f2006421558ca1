"""A model of two peers that negotiate: sections, peer connections and signalling, without I/O.

Each side has a real :class:`Negotiation` and a real :class:`SignalQueue`. What carries their
actions out is a model: a peer connection is the descriptions that it was given, and connects
where both have each other's latest. Time is a number.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from metered_sync.engine.rooms import negotiation
from metered_sync.engine.rooms.negotiation.events import (
    Action,
    ActionFailed,
    AnswerCame,
    AnswerTaken,
    AwaitedAction,
    ChangeState,
    ConnectionState,
    Event,
    GiveUp,
    Greet,
    HelloCame,
    MakeAnswer,
    MakeOffer,
    Observed,
    OfferAnswered,
    OfferCame,
    OfferMade,
    Rebuild,
    RemoteDescription,
    Replace,
    Report,
    RollBack,
    Send,
    StartMedia,
    TakeAnswer,
    TellReset,
    Tick,
    UpdateTracks,
)
from metered_sync.engine.rooms.negotiation.machine import TABLE, Negotiation, Phase
from metered_sync.engine.rooms.negotiation.schedule import NEVER
from metered_sync.engine.rooms.signal_queue import SignalQueue
from metered_sync.wire.signals import Hello, SessionDescription
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from tests.support.docstring_tables import tables

HANDSHAKE = 0.2
"""Seconds that ICE and DTLS take."""
CONSENT = 30.0
"""Seconds after which a peer connection fails whose other end has gone without a word."""

numbers = itertools.count(1)
WAITING, BUSY, OUTCOMES = tables(negotiation.__doc__ or "")
"""The tables of the machine's docstring."""
DOCUMENTED = {row["method"][0]: (row["actions"], row["phases after it"]) for row in OUTCOMES}


def tell(machine: Negotiation, event: Event, now: float) -> tuple[Action, ...]:
    """Tell a machine of an event; see that what comes of it is what is documented."""
    before = machine.phase
    handler = TABLE.get((before, type(event)))
    actions = machine.handle(event, now)
    if handler is not None:
        names, phases = DOCUMENTED[handler.__name__.lstrip("_")]
        for action in actions:
            assert type(action).__name__ in names, f"{handler.__name__}: {action}"
        changed = machine.phase is not before
        assert not changed or machine.phase.name in phases, f"{handler.__name__}: {machine.phase}"
    return actions


@dataclass(frozen=True)
class Text:
    """A description."""

    type: Literal["offer", "answer"]
    author: str
    about: RemoteDescription
    mids: tuple[str, ...]
    sends: dict[str, int]
    """The author's tracks, by section."""
    receives: frozenset[str] = frozenset()
    """In an answer: the sections in which the author takes what the offer sends."""
    rejected: frozenset[str] = frozenset()
    """The sections that are not in use."""

    @property
    def substance(self) -> tuple[object, ...]:
        return self.mids, self.sends, self.receives, self.rejected


@dataclass(eq=False)
class Place:
    """A section, as one side sees it."""

    mid: str = ""
    ours: bool = False
    """Whether this side made it."""
    agreed: bool = False
    live: bool = False
    track: int | None = None
    sends: bool = False
    refused: bool = False
    rejected: bool = False


@dataclass(eq=False)
class Connection:
    """A peer connection: what it was told, and what has come of that."""

    fragment: str = field(default_factory=lambda: f"f{next(numbers)}")
    origin: int = field(default_factory=lambda: next(numbers))
    version: int = 0
    offered: Text | None = None
    answered: Text | None = None
    remote: Text | None = None
    state: ConnectionState = "new"
    changes_at: float = NEVER
    changes_to: ConnectionState = "new"

    def become(self, state: ConnectionState, at: float) -> None:
        if (self.changes_to, self.changes_at < NEVER) != (state, True):
            self.changes_at, self.changes_to = at, state


class Side:
    """One peer."""

    def __init__(self, world: World, name: str, polite: bool, timings: Timings) -> None:
        self.world, self.name, self.polite, self.timings = world, name, polite, timings
        self.tracks: list[int] = []
        self.reports: list[Report] = []
        self.literal = True
        """Whether an offer that is repeated gets the same answer, as ours do; and it says hello."""
        self.failing = 0
        """How many of the next awaited actions fail."""
        self.takes = 0.1
        """Seconds that an awaited action takes."""
        self.picky = False
        """Whether it rejects the sections of the other side's tracks."""
        self.restart()

    def restart(self) -> None:
        """Forget everything, as a page that is loaded again."""
        self.machine = Negotiation(self.timings, polite=self.polite)
        self.queue = SignalQueue(self.name)
        self.places: list[Place] = []
        self.mids: set[str] = set()
        self.refused: set[int] = set()
        """Tracks that the other side has refused."""
        self.moved: set[int] = set()
        """Tracks whose section it has stopped."""
        self.received: dict[str, int] = {}
        self.connection = Connection()
        self.used = False
        self.given_up = False
        self.doing: tuple[float, Event, Text | None] | None = None
        """When the action that is being carried out has which outcome."""
        self.making: Text | None = None
        self.before: str | None = None
        """The other side's fragment before the signal that is being handled."""

    # --- sections ---

    def set_tracks(self, tracks: Sequence[int]) -> None:
        if self.tracks != list(tracks):
            self.refused.clear()
            self.moved.clear()
        self.tracks = list(tracks)
        for place in self.places:
            if place.track not in self.tracks:
                place.track = None

    @property
    def unplaced(self) -> list[int]:
        placed = {place.track for place in self.places if place.live}
        return [track for track in self.tracks if track not in placed]

    @property
    def unsettled(self) -> bool:
        return not self.refused.issuperset(self.unplaced) or any(
            (place.track is not None) != place.sends
            for place in self.places
            if place.live and not place.refused and not place.rejected
        )

    @property
    def in_use(self) -> bool:
        return any(place.agreed and not place.rejected for place in self.places)

    def reject(self, place: Place, *, answered: bool) -> None:
        track, place.track, place.sends = place.track, None, False
        if track is not None:
            if answered or track in self.moved:
                self.refused.add(track)
            self.moved.add(track)

    def place_tracks(self, *, in_new: bool) -> None:
        for track in self.unplaced:
            free = [
                p
                for p in self.places
                if p.live
                and p.track is None
                and not (p.refused or p.rejected)
                and (in_new or p.agreed)
            ]
            if free:
                free[0].track = track
            elif in_new:
                self.places.append(Place(ours=True, live=True, track=track))

    def adopt(self, text: Text) -> None:
        known = {place.mid: place for place in self.places if place.mid}
        withdrawn = [place for place in self.places if not place.mid]
        self.mids.update(text.mids)
        kept = [known.get(mid) or Place(mid) for mid in text.mids]
        for place in kept:
            place.agreed = place.live = True
            place.rejected = place.mid in text.rejected
            if place.rejected:
                self.reject(place, answered=text.type == "answer")
        self.places = [*kept, *withdrawn]
        self.received = dict(text.sends)

    def describe(self, type_: Literal["offer", "answer"], receives: frozenset[str]) -> Text:
        mids = tuple(place.mid for place in self.places if place.mid)
        sends = {p.mid: p.track for p in self.places if p.mid and p.track is not None}
        one = self.connection
        one.version += 1
        about = RemoteDescription(one.fragment, one.origin, one.version)
        rejected = frozenset(p.mid for p in self.places if p.mid and p.rejected)
        return Text(type_, self.name, about, mids, sends, receives - rejected, rejected)

    def withdraw(self) -> None:
        self.connection.offered = None
        for place in self.places:
            if not place.agreed:
                place.mid = ""

    # --- awaited actions ---

    def begin(self, action: AwaitedAction, text: Text | None) -> None:
        """Begin an action. What is asked for later does not change what comes of it."""
        self.used = True
        done: Event
        if self.failing:
            self.failing -= 1
            done = ActionFailed("it fails", "offer")
        elif isinstance(action, MakeOffer):
            done = self.make_offer()
        else:
            assert text is not None
            done = self.take(text)
        self.doing = (self.world.now + self.takes, done, text)

    def make_offer(self) -> Event:
        for place in self.places:
            place.live = True
            if place.refused and place.track is not None and not place.ours:
                place.track = None
        self.place_tracks(in_new=True)
        for place in self.places:
            if not place.mid:
                place.mid = next(m for m in map(str, itertools.count()) if m not in self.mids)
                self.mids.add(place.mid)
        assert self.places, "an offer of nothing"
        self.making = self.describe("offer", frozenset())
        return OfferMade()

    def take(self, text: Text) -> Event:
        one = self.connection
        assert (one.offered is None) == (text.type == "offer")
        if one.state in ("failed", "closed"):
            return ActionFailed("it is closed", "answer")
        if text.type == "answer" and one.remote is None and text.rejected.issuperset(text.mids):
            self.withdraw()
            for place in self.places:
                self.reject(place, answered=True)
            return AnswerTaken(in_use=False, refused=bool(self.refused))
        self.adopt(text)
        if text.type == "offer" and self.picky:
            for place in self.places:
                place.rejected |= place.mid in text.sends and place.track is None
                if place.rejected:
                    self.received.pop(place.mid, None)
        one.remote = text if self.in_use or one.remote is not None else None
        if text.type == "offer":
            self.place_tracks(in_new=False)
            for place in self.places:
                place.sends = bool(place.mid) and place.track is not None
            self.making = self.describe("answer", frozenset(text.sends))
            self.refused -= {place.track for place in self.places if place.sends}
            return OfferAnswered(self.in_use)
        for place in self.places:
            place.sends = place.mid in text.receives
            place.refused = place.track is not None and not place.sends
        self.refused -= {place.track for place in self.places if place.sends}
        refused = any(place.refused for place in self.places) or bool(self.refused)
        return AnswerTaken(self.in_use, refused)

    def end(self, done: Event) -> None:
        """Note what has come of an action."""
        one = self.connection
        if isinstance(done, OfferMade):
            one.offered = self.making
        elif isinstance(done, OfferAnswered):
            one.answered = self.making
        elif isinstance(done, AnswerTaken):
            one.offered = one.answered = None

    # --- the machine ---

    def feed(self, event: Event, text: Text | None = None) -> bool:
        """Tell the machine of an event and carry its actions out; return whether there were any."""
        actions = tell(self.machine, event, self.world.now)
        for action in actions:
            self.carry_out(action, text)
        return bool(actions)

    def carry_out(self, action: Action, text: Text | None) -> None:
        match action:
            case MakeOffer() | MakeAnswer() | TakeAnswer():
                self.begin(action, text)
            case Send(type_):
                one = self.connection
                sent = one.offered if type_ == "offer" else one.answered
                assert sent is not None
                self.world.send(self, sent)
            case Greet(offers):
                if self.literal:
                    self.world.send(self, Hello(offers))
            case RollBack():
                self.withdraw()
            case Replace():
                self.connection = Connection()
                self.doing = None
                self.used = False
                self.refused.clear()
                self.moved.clear()
                self.places = [place for place in self.places if place.agreed]
                for place in self.places:
                    place.live = place.sends = place.refused = False
            case Report():
                self.reports.append(action)
            case GiveUp():
                self.given_up = True
            case ChangeState(state):
                if state == "connected":
                    self.given_up = False
            case StartMedia() | UpdateTracks() | TellReset():
                pass

    def rebuild(self) -> None:
        if self.used:
            self.queue.clear()
            self.before = None
        self.feed(Rebuild(self.polite, self.used))

    def look(self) -> bool:
        one = self.connection
        empty = not self.places and not self.tracks
        return self.feed(
            Observed(one.state, self.unsettled, empty, one.state == "connected", bool(one.remote))
        )

    def step(self) -> bool:
        """Do what is due; return whether anything was."""
        now = self.world.now
        if self.doing is not None:
            if now < self.doing[0]:
                return False
            _, event, text = self.doing
            self.doing = None
            self.end(event)
            self.feed(event, text)
            self.note_handled()
            return True
        if self.look() or self.doing is not None:
            return True
        if self.queue:
            self.take_signal()
            return True
        return self.feed(Tick())

    @property
    def fragment(self) -> str:
        """The other side's, on the present generation."""
        remote = self.connection.remote
        return "" if remote is None else remote.about.fragment

    def note_handled(self) -> None:
        """Note what has become of a signal, once nothing is being done with it."""
        if self.doing is None and self.before is not None:
            if self.fragment not in ("", self.before):
                self.queue.move_on(self.before)
            self.before = None

    def take_signal(self) -> None:
        signal = self.queue.take()
        if isinstance(signal, Hello):
            self.feed(HelloCame(signal.offers))
            return
        assert isinstance(signal, SessionDescription)
        text = self.world.texts[signal.sdp]
        if self.queue.is_outdated(signal, text.about.fragment):
            return
        self.before = self.fragment
        agreed = tuple(place.mid for place in self.places if place.agreed)
        if text.type == "offer":
            fits = self.connection.remote is not None or agreed == text.mids[: len(agreed)]
            known = self.connection.remote
            answered = self.literal and self.connection.answered is not None and text == known
            self.feed(OfferCame(text.about, is_answered=answered, can_roll_back=fits), text)
        else:
            offered = self.connection.offered
            fits = offered is not None and offered.mids == text.mids
            known = self.connection.remote
            differs = known is None or known.substance != text.substance
            self.feed(AnswerCame(text.about, fits and text != known, differs), text)
        self.note_handled()


@dataclass
class Fate:
    """What becomes of the signals of one side."""

    delay: float = 0.05
    lose: int = 0
    """How many of the next are lost."""
    repeat: int = 0
    """How many of the next come twice, the second time after ``later``."""
    later: float = 1.0
    hold: int = 0
    """How many of the next are delayed by ``later``, and overtaken."""
    last: float = 0.0
    """When the latest arrives."""


class World:
    """Two sides, signalling between them, and a network."""

    def __init__(self, timings: Timings = DEFAULT_TIMINGS) -> None:
        self.now = 0.0
        self.texts: dict[str, Text] = {}
        self.hellos: dict[str, Hello] = {}
        self.fates = {"a": Fate(), "b": Fate()}
        self.on_the_way: list[tuple[float, int, str, str]] = []
        self.works = True
        """Whether there is a network path for media."""
        self.a = Side(self, "a", True, timings)
        self.b = Side(self, "b", False, timings)
        self.sides = (self.a, self.b)
        self.sent: list[tuple[float, Text]] = []

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    # --- signalling ---

    def send(self, side: Side, text: Text | Hello) -> None:
        fate, name = self.fates[side.name], str(next(numbers))
        if isinstance(text, Hello):
            self.hellos[name] = text
        else:
            self.sent.append((self.now, text))
            self.texts[name] = text
        if fate.lose:
            fate.lose -= 1
            return
        at = fate.last = max(fate.last, self.now + fate.delay)
        times = [at]
        if fate.hold:
            fate.hold -= 1
            times = [at + fate.later]
        elif fate.repeat:
            fate.repeat -= 1
            times.append(at + fate.later)
        to = self.other(side).name
        for time in times:
            heapq.heappush(self.on_the_way, (time, next(numbers), to, name))

    def deliver(self) -> None:
        while self.on_the_way and self.on_the_way[0][0] <= self.now:
            _, _, to, name = heapq.heappop(self.on_the_way)
            side = self.a if to == "a" else self.b
            hello = self.hellos.get(name)
            side.queue.put(hello or SessionDescription(self.texts[name].type, name))

    def drop(self, *sides: Side) -> None:
        """Have signalling drop for some sides, and come back: what is on its way is lost."""
        self.on_the_way.clear()
        for side in sides:
            side.rebuild()

    # --- media ---

    def meet(self) -> None:
        """Have peer connections connect, or fail, by what they know of each other."""
        one, other = (side.connection for side in self.sides)
        known = [c.remote.about.fragment if c.remote else "" for c in (one, other)]
        mutual = known == [other.fragment, one.fragment]
        for connection in (one, other):
            state = connection.state
            if connection.changes_to in ("closed", "closing") and connection.changes_at < NEVER:
                continue
            if mutual and self.works:
                if state in ("new", "connecting"):
                    connection.become("connected", self.now + HANDSHAKE)
                elif state == "connected":
                    connection.changes_at = NEVER
            elif state == "connected":
                connection.become("failed", self.now + CONSENT)
            else:
                connection.changes_at = NEVER

    def change(self) -> None:
        for side in self.sides:
            one = side.connection
            if self.now >= one.changes_at:
                one.state, one.changes_at = one.changes_to, NEVER
                if one.state == "closing":
                    one.become("closed", self.now + 0.1)

    def hang_up(self, side: Side) -> None:
        """Have a peer connection closed under us, and the other end see it."""
        for one in (side.connection, self.other(side).connection):
            if one.state == "connected":
                one.become("closing", self.now)

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(100_000):
            self.deliver()
            self.change()
            self.meet()
            for side in self.sides:
                for _ in range(100):
                    if not side.step():
                        break
                else:
                    raise AssertionError(f"{side.name} does not come to rest")
            self.meet()
            at = min(self.events())
            if at > end:
                break
            self.now = max(self.now, at)
        else:
            raise AssertionError("time does not pass")
        self.now = end

    def events(self) -> list[float]:
        times = [at for at, *_ in self.on_the_way[:1]]
        for side in self.sides:
            times.append(side.connection.changes_at)
            if side.doing is not None:
                times.append(side.doing[0])
            else:
                times.append(side.machine.wake_at)
        return [*times, NEVER]

    # --- what came of it ---

    def disagreement(self) -> str:
        """Return why the two do not agree, or nothing."""
        if self.on_the_way:
            return "signals are on their way"
        for side in self.sides:
            machine, other = side.machine, self.other(side)
            if machine.phase is not Phase.STABLE:
                return f"{side.name} is {machine.phase.name}"
            if machine.wake_at != NEVER:
                return f"{side.name} waits"
            if side.unsettled:
                return f"{side.name} wants more"
            wanted = set(side.tracks) - side.refused
            if {place.track for place in side.places if place.sends} != wanted:
                return f"{side.name} does not send all of {wanted}"
            if set(side.received.values()) != set(other.tracks) - other.refused:
                return f"{side.name} gets {side.received}, not {other.tracks}"
            if (machine.state, side.connection.state) != ("connected", "connected"):
                nothing = not any(place.sends for one in self.sides for place in one.places)
                if not nothing or machine.state != "idle":
                    return f"{side.name} is {machine.state}, {side.connection.state}"
        return ""

    def mend(self) -> None:
        """Have everything work from now on."""
        self.works = True
        for side in self.sides:
            side.failing, side.takes, side.picky = 0, 0.1, False
            self.fates[side.name] = replace(Fate(), last=self.fates[side.name].last)

"""Handle the events of a negotiation, by a table of phases and events.

Why it does what it does is said in the docstring of this folder.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from metered_sync.engine.rooms.negotiation.events import (
    Action,
    ActionFailed,
    AnswerCame,
    AnswerTaken,
    ChangeState,
    Closing,
    Event,
    GiveUp,
    Greet,
    HelloCame,
    InternalError,
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
    TracksDiffer,
    UpdateTracks,
)
from metered_sync.engine.rooms.negotiation.exchange import Exchange
from metered_sync.engine.rooms.negotiation.schedule import NEVER, Schedule
from metered_sync.wire.states import PeerConnectionState
from metered_sync.wire.timings import Timings

__all__ = ["TABLE", "Negotiation", "Phase"]

Actions = Iterator[Action]


class Phase(enum.Enum):
    """The states of a negotiation: the columns of the table."""

    STABLE = "nothing is waited for, but a connection perhaps"
    OFFERED = "our offer waits for its answer"
    MAKING = "our offer is being made"
    ANSWERING = "the other side's offer is being answered"
    TAKING = "the other side's answer is being taken"
    CLOSING = "the peer connection is closing"
    PAUSED = "the generation was given up; the next one begins after a pause"
    EXHAUSTED = "all attempts were made"
    CLOSED = "the connection was closed, for good"


class Negotiation:
    """The negotiation with one peer, over all generations."""

    def __init__(self, timings: Timings, *, polite: bool) -> None:
        """Begin with a generation that nothing is known of."""
        self.state: PeerConnectionState = "idle"
        """The connection's state, as its owner sees it."""
        self.polite = polite
        """Whether this side gives way."""
        self.generations = 1
        """How many there have been."""
        self.ignores_offer = False
        """Whether the other side's latest offer was ignored."""
        self._timings = timings
        self._schedule = Schedule(timings)
        self._exchange = Exchange()
        self._seen = Observed()
        self._busy: Phase | None = None
        self._taking: RemoteDescription | None = None
        """The description that is being taken."""
        self._offer_again = False
        """Whether to offer even where nothing has changed."""
        self._was_connected = False
        self._said: bool | None = None
        """Whether our hello has said that we offer; ``None``: none was sent yet."""
        self._heard: bool | None = None
        """Whether the other side's has; ``None``: none came."""

    @property
    def phase(self) -> Phase:
        """How far it is."""
        if self.state == "closed":
            return Phase.CLOSED
        if self._busy is not None:
            return self._busy
        if self._schedule.replace_at != NEVER:
            return Phase.PAUSED
        if self._schedule.exhausted:
            return Phase.EXHAUSTED
        if self._seen.connection == "closing":
            return Phase.CLOSING
        return Phase.OFFERED if self._exchange.offered else Phase.STABLE

    @property
    def greeted(self) -> bool:
        """Whether the other side has said that it has this library."""
        return self._heard is not None

    @property
    def failures(self) -> int:
        """How many attempts have failed since a connection was last up."""
        return self._schedule.failures

    @property
    def wake_at(self) -> float:
        """When a :class:`Tick` will have something to do, if nothing else happens."""
        schedule = self._schedule
        offer_at = schedule.offer_at if self._wants_to_offer else NEVER
        return min(schedule.replace_at, schedule.connect_by, offer_at, schedule.repeat_at)

    def handle(self, event: Event, now: float) -> tuple[Action, ...]:
        """Take an event; return what is to be done, in order."""
        if self.phase is Phase.CLOSED:
            return ()
        if isinstance(event, Closing):
            return tuple(self._change_state("closed"))
        if isinstance(event, InternalError):
            return tuple(self._give_generation_up(event.problem, "offer", now))
        handler = TABLE.get((self.phase, type(event)))
        if handler is None:
            raise RuntimeError(f"{type(event).__name__} cannot come in phase {self.phase.name}")
        return tuple(handler(self, event, now))

    # --- what is seen ---

    def _look(self, seen: Observed, now: float) -> Actions:
        yield from self._look_for_life(seen, now)
        if seen.connection in ("failed", "closed"):
            if self._exchange.connected:
                least = self._timings.media_closed if seen.connection == "closed" else 0.0
                yield from self._retry(least, now)
            else:
                yield from self._fail_to_connect(now)

    def _look_for_life(self, seen: Observed, now: float) -> Actions:
        exchange, schedule, self._seen = self._exchange, self._schedule, seen
        if seen.connection == "connected" and not exchange.connected:
            exchange.connected = self._was_connected = True
            schedule.reset()
            schedule.connect_by = schedule.replace_at = NEVER
            if not exchange.offered:
                schedule.repeat_at = NEVER
            yield StartMedia()
            yield from self._change_state("connected")

    # --- time ---

    @property
    def _wants_to_offer(self) -> bool:
        return self.phase is Phase.STABLE and (self._offer_again or self._seen.unsettled)

    def _offer_or_repeat(self, tick: Tick, now: float) -> Actions:
        schedule = self._schedule
        if self._seen.empty and self._exchange == Exchange():
            # All that was wanted may have gone, before anything was said.
            self._offer_again, schedule.offer_at, schedule.connect_by = False, NEVER, NEVER
            yield from self._change_state("idle")
        if self._said is None and self._timings.first_offer and self._exchange.remote is None:
            self._said = self._wants_to_offer
            yield Greet(self._said)
        if self._wants_to_offer and now < schedule.connect_by:
            if schedule.offer_at == NEVER:
                schedule.offer_at = now + self._courtesy()
                yield from self._begin()
            if now >= schedule.offer_at:
                schedule.offer_at, self._busy = NEVER, Phase.MAKING
                yield MakeOffer()
                return
        yield from self._repeat_or_fail(tick, now)

    def _courtesy(self) -> float:
        """Return how long the other side may go first."""
        timings, first = self._timings, self.generations == 1
        if self._exchange.remote is not None:
            return 0
        if first and self.greeted:
            begins = not self._heard or (self._said and not self.polite)
            return 0 if begins else timings.first_offer
        if self.polite:
            return timings.courtesy if self.greeted else timings.first_offer
        return 0 if self.greeted else timings.courtesy

    def _note_hello(self, came: HelloCame, now: float) -> Actions:
        """Take note that the other side needs no courtesy."""
        schedule, self._heard = self._schedule, came.offers
        if schedule.offer_at != NEVER:
            schedule.offer_at = min(schedule.offer_at, now + self._courtesy())
        yield from ()

    def _repeat_or_fail(self, _tick: Tick, now: float) -> Actions:
        exchange, schedule = self._exchange, self._schedule
        if now >= schedule.connect_by:
            yield from self._fail_to_connect(now)
        elif now >= schedule.repeat_at:
            if exchange.offered:
                exchange.repeated = True
                yield Send("offer")
                schedule.repeated(now)
            elif exchange.answered and not exchange.connected:
                yield Send("answer")
                schedule.repeated(now)
            else:
                schedule.repeat_at = NEVER

    def _fail_if_late(self, _tick: Tick, now: float) -> Actions:
        self._schedule.repeat_at = NEVER
        if now >= self._schedule.connect_by:
            yield from self._fail_to_connect(now)

    def _begin_anew(self, _tick: Tick, now: float) -> Actions:
        if now >= self._schedule.replace_at:
            yield from self._begin_generation(now, offer=True)

    # --- an offer of the other side ---

    def _answer(self, came: OfferCame, now: float) -> Actions:
        if came.is_answered:
            yield from self._answer_again(now)
            return
        if self._exchange.is_stale(came.offer):
            return
        if self._exchange.is_over(came.offer):
            yield from self._begin_generation(now, offer=False)
        yield from self._take_offer(came.offer)

    def _answer_again(self, now: float) -> Actions:
        """Send our answer again, as it was: another the other side may not be waiting for."""
        yield Send("answer")
        if self._schedule.connect_by != NEVER:
            self._schedule.allow(now)
            self._schedule.expect(now)

    def _meet_offer(self, came: OfferCame, now: float) -> Actions:
        if not self.polite:
            # The other side drops its own for ours, unless it never got that.
            self._schedule.hasten(now)
            self.ignores_offer = True
            return
        if came.is_answered:
            yield from self._answer_again(now)
            self._schedule.hasten(now)  # (it takes ours after that)
            return
        if self._exchange.is_stale(came.offer):
            return
        if self._exchange.is_over(came.offer) or not came.can_roll_back:
            yield from self._begin_generation(now, offer=False)
        else:
            self._exchange.offered = False
            yield RollBack()
        yield from self._take_offer(came.offer)

    def _answer_anew(self, came: OfferCame, now: float) -> Actions:
        yield from self._begin_generation(now, offer=False)
        yield from self._take_offer(came.offer)

    def _take_offer(self, offer: RemoteDescription) -> Actions:
        self.ignores_offer = False
        yield from self._begin()
        self._busy, self._taking = Phase.ANSWERING, offer
        yield MakeAnswer()

    # --- an answer of the other side ---

    def _take_answer(self, came: AnswerCame, now: float) -> Actions:
        if not came.fits:
            return  # (it is one to an earlier offer)
        self.ignores_offer = False
        if self._exchange.is_over(came.answer):
            # It has begun anew, as the async client does where offers cross.
            yield from self._begin_generation(now, offer=True)
            return
        self._busy, self._taking = Phase.TAKING, came.answer
        yield TakeAnswer()

    def _take_late_answer(self, came: AnswerCame, now: float) -> Actions:
        if self._exchange.offered and self._seen.connection not in ("closing", "failed", "closed"):
            yield from self._take_answer(came, now)

    def _doubt(self, came: AnswerCame, now: float) -> Actions:
        exchange = self._exchange
        if exchange.is_over(came.answer):
            if not exchange.connected:
                yield Report("an outdated answer came before the right one", "answer")
                yield from self._retry(0, now)
        elif exchange.is_doubted_by(came):
            exchange.doubts += 1
            self._offer_again = True

    def _ignore(self, _event: Event, _now: float) -> Actions:
        yield from ()

    # --- outcomes ---

    def _note_offer(self, _made: OfferMade, now: float) -> Actions:
        exchange, self._busy = self._exchange, None
        if not self._offer_again:
            exchange.doubts = 0
        self._offer_again = False
        exchange.described = exchange.offered = True
        yield Send("offer")
        yield from self._begin()
        self._expect(now)

    def _note_answer(self, made: OfferAnswered, now: float) -> Actions:
        exchange, schedule = self._exchange, self._schedule
        self._note_remote()
        self._offer_again = False
        exchange.described = exchange.answered = True
        schedule.offer_at = NEVER
        yield Send("answer")
        if not exchange.connected:
            schedule.connect_by = NEVER
            if made.in_use:
                self._expect(now)
            else:
                schedule.repeat_at = NEVER
                yield from self._come_to_rest()
        yield UpdateTracks()

    def _note_agreement(self, taken: AnswerTaken, now: float) -> Actions:
        exchange, schedule = self._exchange, self._schedule
        self._note_remote()
        exchange.offered = exchange.answered = False
        schedule.repeat_at = schedule.connect_by = NEVER
        if not exchange.connected:
            if taken.in_use:
                schedule.allow(now)
            else:
                yield from self._come_to_rest()
        if taken.refused and exchange.repeated and exchange.may_doubt:
            exchange.doubts += 1
            self._offer_again, exchange.repeated = True, False
        yield UpdateTracks()

    def _come_to_rest(self) -> Actions:
        """Wait for nothing: all was refused, and nothing was agreed on that may be outdated."""
        self._exchange.remote = None
        yield from self._change_state("idle")

    def _note_remote(self) -> None:
        """Note a description that was taken: the other side lives."""
        self._exchange.remote, self._busy, self._taking = self._taking, None, None
        self._schedule.exhausted, self._schedule.replace_at = False, NEVER

    def _expect(self, now: float) -> None:
        """Begin to wait for an answer, or for a connection."""
        self._schedule.expect(now)
        if not self._exchange.connected and self._schedule.connect_by == NEVER:
            self._schedule.allow(now)

    def _answer_or_fail(self, failed: ActionFailed, now: float) -> Actions:
        offer = self._taking
        if offer is None or not self._exchange.described:
            yield from self._fail(failed, now)
            return
        # It may be our side of the generation that the offer does not fit.
        yield from self._begin_generation(now, offer=False)
        yield from self._take_offer(offer)

    def _fail(self, failed: ActionFailed, now: float) -> Actions:
        yield from self._give_generation_up(failed.problem, failed.stage, now)

    # --- generations ---

    def _rebuild(self, rebuild: Rebuild, now: float) -> Actions:
        self.polite, self._said = rebuild.polite, None
        if rebuild.used:
            self._schedule.reset()
            yield from self._begin_generation(now, offer=True)

    def _replace(self, _differ: TracksDiffer, now: float) -> Actions:
        yield from self._begin_generation(now, offer=True)

    def _begin_generation(self, now: float, *, offer: bool) -> Actions:
        """Begin the next generation; ``offer``: with an offer, even where nothing has changed."""
        self._exchange, self._busy, self._taking = Exchange(), None, None
        self._seen = replace(self._seen, connection="new")
        self._offer_again = offer
        self.generations += 1
        self._schedule.begin(now)
        yield Replace()
        yield from self._change_state("reconnecting" if self._was_connected else "connecting")
        yield TellReset()

    def _fail_to_connect(self, now: float) -> Actions:
        if self._exchange.remote is None:
            yield from self._give_generation_up("the peer has not answered", "answer", now)
            return
        stage = "DTLS" if self._seen.ice_completed else "ICE"
        yield from self._give_generation_up(self._seen.what_is_missing(), stage, now)

    def _give_generation_up(self, problem: str, stage: str, now: float) -> Actions:
        """Report a failure, and have another generation made, now or later."""
        schedule, self._busy, self._taking = self._schedule, None, None
        yield Report(problem, stage)
        if not schedule.spent:
            yield from self._retry(0, now)
            return
        known = schedule.exhausted
        schedule.give_up()
        if not known:
            attempts = f"given up after {schedule.failures} attempts"
            yield GiveUp(f"{attempts}; the last one failed at {stage}: {problem}", stage)

    def _retry(self, least: float, now: float) -> Actions:
        self._schedule.retry(least, now)
        yield from self._change_state("reconnecting" if self._was_connected else "connecting")

    # --- the state ---

    def _begin(self) -> Actions:
        if self.state == "idle":
            yield from self._change_state("connecting")

    def _change_state(self, state: PeerConnectionState) -> Actions:
        if state != self.state:
            self.state = state
            yield ChangeState(state)


Handler = Callable[[Negotiation, Any, float], Actions]
Table = dict[tuple[Phase, type], Handler]


def _rows(phases: tuple[Phase, ...], rows: dict[type, tuple[Handler | None, ...]]) -> Table:
    return {
        (phase, event): handler
        for event, handlers in rows.items()
        for phase, handler in zip(phases, handlers, strict=True)
        if handler is not None
    }


_N = Negotiation
TABLE: Table = {
    **_rows(
        (Phase.STABLE, Phase.OFFERED, Phase.CLOSING, Phase.PAUSED, Phase.EXHAUSTED),
        {
            Observed: (_N._look, _N._look, _N._look, _N._look_for_life, _N._look_for_life),
            Tick: (
                _N._offer_or_repeat,
                _N._repeat_or_fail,
                _N._fail_if_late,
                _N._begin_anew,
                _N._fail_if_late,
            ),
            OfferCame: (_N._answer, _N._meet_offer, *[_N._answer_anew] * 3),
            AnswerCame: (
                _N._doubt,
                _N._take_answer,
                _N._ignore,
                _N._take_late_answer,
                _N._take_late_answer,
            ),
            HelloCame: (_N._note_hello,) * 5,
            TracksDiffer: (_N._replace,) * 5,
            Rebuild: (_N._rebuild,) * 5,
        },
    ),
    **_rows(
        (Phase.MAKING, Phase.ANSWERING, Phase.TAKING),
        {
            OfferMade: (_N._note_offer, None, None),
            OfferAnswered: (None, _N._note_answer, None),
            AnswerTaken: (None, None, _N._note_agreement),
            ActionFailed: (_N._fail, _N._answer_or_fail, _N._fail),
            Rebuild: (_N._rebuild,) * 3,
        },
    ),
}
"""What is done with which event in which phase."""

"""A negotiation by its table, and two of them that are told of everything that can go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from metered_sync.engine.rooms import negotiation
from metered_sync.engine.rooms.negotiation import events
from metered_sync.engine.rooms.negotiation.events import (
    Action,
    ActionFailed,
    AnswerCame,
    AnswerTaken,
    ChangeState,
    Closing,
    ConnectionState,
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
from metered_sync.engine.rooms.negotiation.exchange import MAX_DOUBTS
from metered_sync.engine.rooms.negotiation.machine import TABLE, Negotiation, Phase
from metered_sync.engine.rooms.negotiation.schedule import NEVER
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from tests.conftest import ROOT
from tests.support.negotiation_model import BUSY, WAITING, Side, World, numbers, tell

T = DEFAULT_TIMINGS
THEIRS = RemoteDescription("theirs", 7, 3)
LATER = replace(THEIRS, origin_version=4)
EARLIER = replace(THEIRS, origin_version=2)
ANOTHER = RemoteDescription("another", 8, 1)
"""Made by the next generation there."""
LIVE = [phase for phase in Phase if phase is not Phase.CLOSED]
BEGIN_ANEW: list[Action] = [Replace(), ChangeState("connecting"), TellReset()]


def offer(about: RemoteDescription = THEIRS, **facts: bool) -> OfferCame:
    return OfferCame(about, **({"is_answered": False, "can_roll_back": True} | facts))


def answer(about: RemoteDescription = THEIRS, **facts: bool) -> AnswerCame:
    return AnswerCame(about, **({"fits": True, "differs": False} | facts))


class Machine:
    """A negotiation in hand, with a clock."""

    def __init__(self, *, polite: bool = False, timings: Timings = T) -> None:
        self.it = Negotiation(timings, polite=polite)
        self.now = 0.0
        self.greetings: list[bool] = []
        """What its hellos have said."""

    def tell(self, *events: Event) -> list[Action]:
        """Tell of events; return what is to be done about the last one."""
        actions: Sequence[Action] = ()
        for event in events:
            actions = tell(self.it, event, self.now)
            self.greetings += [one.offers for one in actions if isinstance(one, Greet)]
        return [action for action in actions if not isinstance(action, Greet)]

    def see(self, connection: ConnectionState = "new", **facts: bool) -> list[Action]:
        return self.tell(Observed(connection, **facts))

    def after(self, seconds: float) -> list[Action]:
        """Let time pass, and tell of it."""
        self.now += seconds
        return self.tell(Tick())

    def wait(self) -> list[Action]:
        """Let time pass until something is due."""
        assert self.it.wake_at < NEVER
        return self.after(max(0.0, self.it.wake_at - self.now))

    def make_offer(self) -> Machine:
        """Let it begin to make an offer."""
        self.see(unsettled=True)
        due = self.after(0)
        if MakeOffer() not in due:
            due = self.wait()
        assert due == [MakeOffer()]
        return self

    @property
    def phase(self) -> Phase:
        return self.it.phase

    # --- ways into the phases ---

    def offered(self) -> Machine:
        self.make_offer().tell(OfferMade())
        return self

    def agreed(self) -> Machine:
        self.offered().tell(answer(), AnswerTaken(in_use=True))
        return self

    def answered(self) -> Machine:
        self.tell(offer(), OfferAnswered(in_use=True))
        return self

    def connected(self) -> Machine:
        self.agreed().see("connected")
        return self

    def paused(self) -> Machine:
        self.offered().after(T.media_connect)
        return self

    def exhausted(self) -> Machine:
        for _ in T.ladder:
            self.make_offer().tell(ActionFailed("it fails", "offer"))
            self.wait()
        self.make_offer().tell(ActionFailed("it fails", "offer"))
        return self


def in_phase(phase: Phase, **options: Any) -> Machine:
    """Return a machine in a phase."""
    machine = Machine(**options)
    match phase:
        case Phase.STABLE:
            machine.agreed()
        case Phase.OFFERED:
            machine.offered()
        case Phase.MAKING:
            machine.make_offer()
        case Phase.ANSWERING:
            machine.tell(offer())
        case Phase.TAKING:
            machine.offered().tell(answer())
        case Phase.CLOSING:
            machine.connected().see("closing")
        case Phase.PAUSED:
            machine.paused()
        case Phase.EXHAUSTED:
            machine.exhausted()
        case Phase.CLOSED:
            machine.tell(Closing())
    assert machine.phase is phase
    return machine


# --- the table ---


def test_the_table_is_the_one_that_is_documented() -> None:
    documented = {
        (Phase[phase], getattr(events, row["event"][0])): names[0]
        for table in (WAITING, BUSY)
        for row in table
        for phase, names in row.items()
        if phase != "event" and names != ["-"]
    }
    page = (ROOT / "docs/architecture/negotiation.md").read_text()
    for row in (*WAITING, *BUSY):
        assert "| " + " | ".join(names[0] for names in row.values()) + " |" in page
    assert documented == {at: method.__name__.lstrip("_") for at, method in TABLE.items()}
    assert {phase for phase, _ in TABLE} == set(Phase) - {Phase.CLOSED}


def test_every_method_is_in_a_table() -> None:
    text = negotiation.__doc__ or ""
    assert all(method.__name__.lstrip("_") in text for method in TABLE.values())


@pytest.mark.parametrize("phase", Phase)
def test_an_event_that_cannot_come_is_a_mistake(phase: Phase) -> None:
    machine = in_phase(phase)
    events = [OfferMade(), OfferAnswered(True), AnswerTaken(True), ActionFailed("", "")]
    wrong = [event for event in events if (phase, type(event)) not in TABLE]
    for event in wrong:
        if phase is Phase.CLOSED:
            assert machine.tell(event) == []
        else:
            with pytest.raises(RuntimeError, match=f"cannot come in phase {phase.name}"):
                machine.tell(event)


# --- who offers ---


@pytest.mark.parametrize(("polite", "wait"), [(True, T.first_offer), (False, T.courtesy)])
def test_the_other_side_may_offer_first(polite: bool, wait: float) -> None:
    machine = Machine(polite=polite)
    machine.see(unsettled=True)
    assert machine.after(0) == [ChangeState("connecting")]
    assert machine.it.wake_at == wait
    assert machine.after(wait * 0.9) == []
    assert machine.after(wait * 0.2) == [MakeOffer()]
    assert machine.tell(OfferMade()) == [Send("offer")]
    assert machine.it.wake_at == pytest.approx(machine.now + T.answer)


@pytest.mark.parametrize(("polite", "wait"), [(True, T.first_offer), (False, T.courtesy)])
def test_the_other_side_may_offer_first_on_a_later_generation(polite: bool, wait: float) -> None:
    """A browser does at once, and might never find candidates where an offer of ours crosses."""
    machine = Machine(polite=polite)
    machine.tell(Rebuild(polite, used=True))
    assert machine.see() == []
    assert (machine.after(0), machine.it.wake_at) == ([], wait)
    assert machine.after(wait) == [MakeOffer()]


@pytest.mark.parametrize("polite", [True, False])
def test_an_offer_of_the_other_side_is_answered_while_it_may_go_first(polite: bool) -> None:
    machine = Machine(polite=polite).connected()
    machine.tell(Rebuild(polite, used=True))
    machine.see()
    assert machine.after(0) == []
    assert machine.tell(offer(ANOTHER)) == [MakeAnswer()]
    assert machine.tell(OfferAnswered(in_use=True)) == [Send("answer"), UpdateTracks()]
    assert machine.after(T.first_offer) == []


@pytest.mark.parametrize("polite", [True, False])
def test_after_the_first_negotiation_nobody_waits(polite: bool) -> None:
    machine = Machine(polite=polite).agreed()
    machine.see("connected", unsettled=True)
    assert machine.after(0) == [MakeOffer()]


def test_without_anything_to_offer_nothing_is_done() -> None:
    machine = Machine()
    assert machine.see() == machine.after(100) == []
    assert (machine.it.wake_at, machine.it.state) == (NEVER, "idle")


def test_where_all_that_was_wanted_has_gone_again_it_is_idle() -> None:
    machine = Machine().offered()
    machine.tell(Rebuild(False, used=True))
    machine.see(empty=True)
    assert machine.after(0) == [ChangeState("idle")]
    assert machine.it.wake_at == NEVER


def test_what_has_gone_before_it_was_offered_is_not_missed() -> None:
    machine = Machine()
    machine.see(unsettled=True)
    machine.after(0)
    machine.see(empty=True)
    assert machine.after(0) == [ChangeState("idle")]
    machine.see(unsettled=True)
    assert machine.after(10) == [ChangeState("connecting")]
    assert machine.it.wake_at == machine.now + T.courtesy


# --- peers of the same kind ---


def test_hello_is_said_once_before_anything_else() -> None:
    it = Negotiation(T, polite=False)
    tell(it, Observed(unsettled=True), 0.0)
    assert tell(it, Tick(), 0.0) == (Greet(True), ChangeState("connecting"))
    assert tell(it, Tick(), 0.1) == ()
    it = Negotiation(T, polite=False)
    assert tell(it, Tick(), 0.0) == (Greet(False),)


def test_where_nobody_waits_no_hello_is_needed() -> None:
    machine = Machine(timings=replace(T, first_offer=0.0, courtesy=0.0))
    machine.see(unsettled=True)
    assert machine.after(0) == [ChangeState("connecting"), MakeOffer()]
    assert machine.greetings == []


def test_hello_is_said_again_when_signalling_is_back() -> None:
    # The other side may be another process by now.
    machine = Machine().connected()
    machine.tell(Rebuild(False, used=True), Tick())
    assert machine.greetings == [True, True]
    machine = Machine()
    machine.tell(Tick(), Rebuild(False, used=False), Tick())
    assert machine.greetings == [False, False]


def test_hello_is_not_said_to_one_that_was_quicker() -> None:
    machine = Machine().answered()
    machine.after(0)
    assert machine.greetings == []


@pytest.mark.parametrize(
    ("polite", "said", "heard", "first"),
    [
        (True, True, True, False),
        (True, True, False, True),
        (True, False, True, False),
        (True, False, False, True),
        (False, True, True, True),
        (False, True, False, True),
        (False, False, True, False),
        (False, False, False, True),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_one_of_two_offers_at_once(
    polite: bool, said: bool, heard: bool, first: bool, early: bool
) -> None:
    """Whether the hello comes before there is anything to offer, or after that."""
    machine = Machine(polite=polite)
    if said:
        machine.see(unsettled=True)
    machine.tell(Tick())
    if early:
        machine.tell(HelloCame(heard))
    machine.see(unsettled=True)
    due = machine.after(0)
    if not early:
        assert MakeOffer() not in due
        machine.tell(HelloCame(heard))
        due = machine.after(0)
    assert (MakeOffer() in due) == first
    if not first:
        # For the other side's offer, which may be lost.
        assert machine.wait() == [MakeOffer()]
        assert machine.now == (T.first_offer if early or polite else T.courtesy)


def test_two_of_which_one_goes_first_never_both_do() -> None:
    for said in (True, False):
        for heard in (True, False):
            first = []
            for polite in (True, False):
                machine = Machine(polite=polite)
                mine, theirs = (said, heard) if polite else (heard, said)
                machine.see(unsettled=mine)
                machine.tell(Tick(), HelloCame(theirs))
                first += [polite] if mine and machine.after(0) == [MakeOffer()] else []
            assert len(first) == (said or heard)


def test_a_hello_does_not_make_a_wait_longer() -> None:
    machine = Machine(polite=False)
    machine.see()
    machine.tell(Tick())
    machine.see(unsettled=True)
    machine.after(0)
    machine.now += T.courtesy * 0.9
    machine.tell(HelloCame(True))
    assert machine.it.wake_at == T.courtesy


@pytest.mark.parametrize(("polite", "wait"), [(True, T.courtesy), (False, 0.0)])
def test_on_a_later_generation_the_polite_one_waits_shortly(polite: bool, wait: float) -> None:
    machine = Machine(polite=polite)
    machine.tell(Tick(), HelloCame(True))
    machine.connected()
    machine.see("failed")
    began = machine.now
    machine.tell(Tick())
    machine.see()
    if wait:
        machine.tell(Tick())
        assert machine.it.wake_at == machine.now + wait
        machine.now += wait
    assert machine.tell(Tick()) == [MakeOffer()]
    assert machine.now == began + wait


@pytest.mark.parametrize("phase", LIVE)
def test_a_hello_in_every_phase(phase: Phase) -> None:
    machine = in_phase(phase)
    if phase in (Phase.MAKING, Phase.ANSWERING, Phase.TAKING):
        return  # signals wait
    assert machine.tell(HelloCame(True)) == []
    assert machine.phase is phase


# --- offers that cross ---


def test_the_impolite_one_insists_and_repeats_its_offer_soon() -> None:
    machine = Machine(polite=False).offered()
    assert machine.tell(offer()) == []
    assert machine.it.ignores_offer
    assert machine.phase is Phase.OFFERED
    assert machine.it.wake_at == machine.now + T.crossing
    assert machine.after(T.crossing) == [Send("offer")]
    assert machine.it.wake_at == machine.now + 2 * T.crossing


def test_the_polite_one_takes_its_own_back() -> None:
    machine = Machine(polite=True).offered()
    assert machine.tell(offer()) == [RollBack(), MakeAnswer()]
    assert machine.tell(OfferAnswered(in_use=True)) == [Send("answer"), UpdateTracks()]
    assert machine.phase is Phase.STABLE


def test_what_cannot_be_taken_back_is_dropped_with_its_generation() -> None:
    machine = Machine(polite=True).offered()
    assert machine.tell(offer(can_roll_back=False)) == [Replace(), TellReset(), MakeAnswer()]
    assert machine.it.generations == 2


def test_the_polite_one_does_not_give_way_to_an_older_offer() -> None:
    machine = Machine(polite=True).agreed()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade())
    assert machine.tell(offer(EARLIER)) == []
    assert machine.phase is Phase.OFFERED


def test_an_offer_that_is_due_is_not_made_once_the_other_side_was_first() -> None:
    machine = Machine(polite=True)
    machine.see(unsettled=True)
    machine.after(0)
    machine.answered()
    machine.see(unsettled=False)
    assert machine.it.wake_at == machine.now + T.answer  # for a connection
    machine.now += T.first_offer
    assert machine.tell(Tick()) == []


# --- an offer of the other side ---


def test_an_older_offer_is_ignored() -> None:
    machine = Machine().answered()
    assert machine.tell(offer(EARLIER)) == []
    assert machine.tell(offer(LATER)) == [MakeAnswer()]


@pytest.mark.parametrize("polite", [True, False])
def test_an_offer_that_comes_again_gets_the_same_answer(polite: bool) -> None:
    machine = Machine(polite=polite).answered()
    machine.now += T.answer / 2
    assert machine.tell(offer(is_answered=True)) == [Send("answer")]
    assert machine.it.wake_at == machine.now + T.answer
    machine.see("connected")
    assert machine.tell(offer(is_answered=True)) == [Send("answer")]
    assert machine.it.wake_at == NEVER


def test_an_offer_that_comes_again_leaves_ours_standing() -> None:
    machine = Machine(polite=True).answered()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade())
    assert machine.tell(offer(is_answered=True)) == [Send("answer")]
    assert machine.phase is Phase.OFFERED
    assert machine.it.wake_at == machine.now + T.crossing


def test_an_offer_of_the_next_generation_there_is_answered_from_the_next_here() -> None:
    machine = Machine().connected()
    expected = [Replace(), ChangeState("reconnecting"), TellReset(), MakeAnswer()]
    assert machine.tell(offer(ANOTHER)) == expected
    machine.tell(OfferAnswered(in_use=True))
    assert machine.see("connected") == [StartMedia(), ChangeState("connected")]
    assert machine.it.wake_at == NEVER


def test_an_offer_that_does_not_fit_what_was_agreed_on_is_answered_anew() -> None:
    machine = Machine().answered()
    machine.tell(offer(LATER))
    assert machine.tell(ActionFailed("it fails", "answer")) == [
        Replace(),
        TellReset(),
        MakeAnswer(),
    ]
    assert machine.tell(ActionFailed("it fails", "answer")) == [Report("it fails", "answer")]
    assert machine.phase is Phase.PAUSED


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.PAUSED, Phase.EXHAUSTED])
def test_an_offer_ends_every_pause(phase: Phase) -> None:
    machine = in_phase(phase)
    assert machine.tell(offer(EARLIER))[-2:] == [TellReset(), MakeAnswer()]
    machine.tell(OfferAnswered(in_use=True))
    assert machine.phase is Phase.STABLE


# --- an answer of the other side ---


def test_an_answer_is_taken() -> None:
    machine = Machine().offered()
    assert machine.tell(answer()) == [TakeAnswer()]
    assert machine.tell(AnswerTaken(in_use=True)) == [UpdateTracks()]
    assert machine.it.wake_at == machine.now + T.media_connect


def test_nothing_connects_without_a_section() -> None:
    machine = Machine().offered()
    assert machine.tell(answer(), AnswerTaken(in_use=False)) == [
        ChangeState("idle"),
        UpdateTracks(),
    ]
    assert machine.it.wake_at == NEVER
    machine = Machine()
    taken = machine.tell(offer(), OfferAnswered(in_use=False))
    assert taken == [Send("answer"), ChangeState("idle"), UpdateTracks()]
    assert machine.it.wake_at == NEVER
    # until there is something to offer, or the other side has
    machine.see(unsettled=True)
    assert machine.after(0) == [ChangeState("connecting")]
    assert machine.wait() == [MakeOffer()]
    machine = Machine().offered()
    machine.tell(answer(), AnswerTaken(in_use=False))
    assert ChangeState("connecting") in machine.tell(offer(ANOTHER))


def test_a_live_connection_of_which_all_is_refused_stays_connected() -> None:
    machine = Machine().connected()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade(), answer(LATER), AnswerTaken(in_use=False, refused=True))
    assert (machine.it.state, machine.phase) == ("connected", Phase.STABLE)
    machine.see("connected")
    assert machine.after(1000) == []


def test_an_answer_that_does_not_fit_is_to_an_earlier_offer() -> None:
    machine = Machine().offered()
    assert machine.tell(answer(fits=False)) == []
    assert machine.phase is Phase.OFFERED


def test_an_answer_of_the_next_generation_there_ends_ours() -> None:
    machine = Machine().connected()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade())
    assert machine.tell(answer(ANOTHER)) == [Replace(), ChangeState("reconnecting"), TellReset()]
    assert (machine.after(0), machine.wait()) == ([], [MakeOffer()])


def test_an_outdated_answer_was_taken() -> None:
    machine = Machine().agreed()
    [report] = machine.tell(answer(ANOTHER))
    assert report == Report("an outdated answer came before the right one", "answer")
    assert machine.phase is Phase.PAUSED
    machine = Machine().connected()
    assert machine.tell(answer(ANOTHER)) == []  # it cannot have been


def test_an_answer_too_many_that_says_something_else_is_a_reason_to_offer_once_more() -> None:
    machine = Machine().connected()
    assert machine.tell(answer(LATER), Tick()) == []
    assert machine.tell(answer(EARLIER, differs=True), Tick()) == []
    for _ in range(MAX_DOUBTS):
        machine.tell(answer(LATER, differs=True))
        machine.see("connected")
        assert machine.after(0) == [MakeOffer()]
        machine.tell(OfferMade(), answer(LATER), AnswerTaken(in_use=True))
    machine.tell(answer(LATER, differs=True))
    assert machine.after(0) == []
    # something new to offer begins the count anew
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade(), answer(LATER), AnswerTaken(in_use=True))
    machine.see("connected")
    machine.tell(answer(LATER, differs=True))
    assert machine.after(0) == [MakeOffer()]


def test_a_refusal_is_doubted_where_an_offer_was_repeated() -> None:
    machine = Machine().connected()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade(), answer(LATER), AnswerTaken(in_use=True, refused=True))
    machine.see("connected")
    assert machine.after(0) == []
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade())
    machine.wait()
    machine.tell(answer(LATER), AnswerTaken(in_use=True, refused=True))
    machine.see("connected")
    assert machine.after(0) == [MakeOffer()]
    machine.tell(OfferMade(), answer(LATER), AnswerTaken(in_use=True, refused=True))
    assert machine.after(0) == []


def test_an_answer_nobody_has_asked_for_changes_nothing() -> None:
    assert Machine().tell(answer(differs=True), Tick()) == []


def test_a_late_answer_ends_a_pause() -> None:
    machine = in_phase(Phase.PAUSED)
    assert machine.tell(answer()) == [TakeAnswer()]
    assert machine.tell(AnswerTaken(in_use=True)) == [UpdateTracks()]
    assert machine.phase is Phase.STABLE
    assert machine.it.wake_at == machine.now + T.media_connect


def test_a_late_answer_to_a_connection_that_is_down_is_ignored() -> None:
    machine = Machine().offered()
    machine.see("failed")
    assert machine.phase is Phase.PAUSED
    assert machine.tell(answer()) == []


# --- losses ---


def test_an_offer_is_repeated_with_growing_pauses() -> None:
    machine = Machine(timings=replace(T, media_connect=1000.0)).offered()
    began, sent = machine.now, []
    for _ in range(6):
        assert machine.wait() == [Send("offer")]
        sent.append(machine.now - began)
    assert sent == pytest.approx([2.5, 7.5, 17.5, 37.5, 67.5, 97.5])


def test_an_answer_is_repeated_until_there_is_a_connection() -> None:
    machine = Machine().answered()
    assert machine.wait() == [Send("answer")]
    machine.see("connected")
    assert machine.it.wake_at == NEVER


def test_an_offer_on_a_live_connection_is_repeated_too() -> None:
    machine = Machine().connected()
    machine.see("connected", unsettled=True)
    machine.tell(Tick(), OfferMade())
    assert machine.wait() == [Send("offer")]
    assert machine.it.wake_at == machine.now + 2 * T.answer


# --- failures, and the ladder ---


def test_the_ladder() -> None:
    machine, pauses = Machine(), []
    for _ in T.ladder:
        machine.offered()
        assert machine.after(T.media_connect) == [Report("the peer has not answered", "answer")]
        pauses.append(machine.it.wake_at - machine.now)
        assert machine.wait() == [Replace(), TellReset()]
    assert pauses == pytest.approx(list(T.ladder))
    machine.offered()
    report, given_up = machine.after(T.media_connect)
    assert report == Report("the peer has not answered", "answer")
    assert given_up == GiveUp(
        f"given up after {len(T.ladder)} attempts; the last one failed at answer: "
        "the peer has not answered",
        "answer",
    )
    assert (machine.phase, machine.it.wake_at) == (Phase.EXHAUSTED, NEVER)
    assert machine.it.generations == len(T.ladder) + 1


@pytest.mark.parametrize(
    ("facts", "stage", "problem"),
    [
        ({}, "ICE", "no address"),
        ({"has_candidates": True}, "ICE", "no network path"),
        ({"has_candidates": True, "ice_completed": True}, "DTLS", "handshake"),
    ],
)
def test_what_kept_a_connection_from_coming_about(
    facts: dict[str, bool], stage: str, problem: str
) -> None:
    machine = Machine().agreed()
    machine.see("connecting", **facts)
    [report] = machine.after(T.media_connect)
    assert isinstance(report, Report)
    assert (report.stage, problem in report.problem) == (stage, True)


@pytest.mark.parametrize(
    ("state", "pause"), [("failed", 0.0), ("closed", T.media_closed), ("closing", NEVER)]
)
def test_a_connection_that_ends_is_made_again(state: ConnectionState, pause: float) -> None:
    machine = Machine().connected()
    assert machine.see(state) == ([] if state == "closing" else [ChangeState("reconnecting")])
    assert machine.it.wake_at == machine.now + pause
    if state != "closing":
        assert machine.wait() == [Replace(), TellReset()]


def test_a_connection_begins_the_ladder_anew() -> None:
    machine = Machine().offered()
    machine.after(T.media_connect)
    assert machine.it.failures == 1
    machine.wait()
    machine.see()
    assert (machine.after(0), machine.wait()) == ([], [MakeOffer()])
    machine.tell(OfferMade(), answer(), AnswerTaken(in_use=True))
    assert machine.it.failures == 1
    machine.see("connected")
    assert machine.it.failures == 0


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.EXHAUSTED])
def test_a_connection_that_comes_up_at_last_ends_every_pause(phase: Phase) -> None:
    machine = in_phase(phase)
    assert machine.see("connected") == [StartMedia(), ChangeState("connected")]
    assert machine.phase in (Phase.STABLE, Phase.OFFERED)


def test_a_live_connection_whose_negotiation_fails_is_not_told_of_as_connected_again() -> None:
    machine = Machine().connected()
    machine.see("connected", unsettled=True)
    machine.tell(Tick())
    failed = ActionFailed("it fails", "offer")
    assert machine.tell(failed) == [Report("it fails", "offer"), ChangeState("reconnecting")]
    assert machine.see("connected", unsettled=True) == []
    assert machine.after(0) == [Replace(), TellReset()]


def test_given_up_it_does_nothing_until_the_other_side_offers_or_it_is_built_again() -> None:
    machine = in_phase(Phase.EXHAUSTED)
    assert machine.see("failed", unsettled=True) == machine.after(1000) == []
    assert machine.tell(Rebuild(False, used=True)) == [Replace(), TellReset()]
    assert (machine.after(0), machine.wait()) == ([], [MakeOffer()])


# --- what interrupts ---


@pytest.mark.parametrize("phase", LIVE)
def test_building_again_in_every_phase(phase: Phase) -> None:
    machine = in_phase(phase)
    before = machine.phase
    assert machine.tell(Rebuild(True, used=False)) == []
    assert (machine.phase, machine.it.polite) == (before, True)
    actions = machine.tell(Rebuild(False, used=True))
    assert (actions[0], actions[-1]) == (Replace(), TellReset())
    assert (machine.phase, machine.it.polite, machine.it.failures) == (Phase.STABLE, False, 0)
    machine.see()
    assert (machine.after(0), machine.wait()) == ([], [MakeOffer()])


@pytest.mark.parametrize("phase", LIVE)
def test_closing_in_every_phase(phase: Phase) -> None:
    machine = in_phase(phase)
    assert machine.tell(Closing()) == [ChangeState("closed")]
    for event in (Closing(), Tick(), offer(), answer(), Rebuild(True, used=True), OfferMade()):
        assert machine.tell(event) == []
    assert machine.phase is Phase.CLOSED


@pytest.mark.parametrize("phase", LIVE)
def test_an_internal_error_in_every_phase(phase: Phase) -> None:
    machine = in_phase(phase)
    assert machine.tell(InternalError("a bug"))[0] == Report("a bug", "offer")
    assert machine.phase in (Phase.PAUSED, Phase.EXHAUSTED)


def test_tracks_that_cannot_be_received_again() -> None:
    machine = Machine().connected()
    assert machine.tell(TracksDiffer()) == [Replace(), ChangeState("reconnecting"), TellReset()]
    assert (machine.after(0), machine.wait()) == ([], [MakeOffer()])


# --- two of them ---


def test_an_answer_to_a_repeated_offer_hides_nothing() -> None:
    # Our offer is answered slowly, and repeated; meanwhile the other side has a track to send.
    world = World()
    world.b.set_tracks([1])
    world.run(3)
    world.a.takes = 5.0
    world.b.set_tracks([1, 2])
    world.run(0.15)
    world.a.set_tracks([3])
    world.run(30)
    assert world.disagreement() == ""


@pytest.mark.parametrize("literal", [True, False])
def test_an_answer_that_is_taken_for_one_to_the_next_offer(literal: bool) -> None:
    world = World()
    world.b.literal = literal
    world.a.set_tracks([1])
    world.run(5)
    world.fates["b"].delay = 3.0
    world.a.set_tracks([])
    world.run(1)
    world.a.set_tracks([2])  # in the same section
    world.run(60)
    assert world.disagreement() == ""
    assert [side.machine.generations for side in world.sides] == [1, 1]


@pytest.mark.parametrize("refused", [1, 2])
def test_what_is_refused_is_offered_once(refused: int) -> None:
    """All of it, or what comes later; and once more where our tracks change."""
    world = World()
    if refused == 2:
        world.a.set_tracks([1])
        world.run(5)
    world.b.picky = True
    before = len(world.sent)
    world.a.set_tracks(list(range(1, refused + 1)))
    world.run(600)
    assert [text.type for _, text in world.sent[before:]] == ["offer", "answer"]
    assert world.a.refused == set(world.a.tracks)
    world.a.set_tracks([*world.a.tracks, 3])
    world.run(600)
    assert [text.type for _, text in world.sent[before:]] == ["offer", "answer"] * 2
    world.b.picky = False
    world.b.set_tracks([4])  # a section with room for one
    world.run(600)
    assert world.disagreement() == ""
    assert len(world.a.refused) == refused
    world.a.set_tracks([3])
    world.run(600)
    assert world.disagreement() == ""
    assert world.a.refused == set()


TIMES = [n / 20 for n in range(12)]


@pytest.mark.parametrize("at", TIMES)
def test_offers_of_two_of_ours_cross_only_where_both_begin_at_once(at: float) -> None:
    """One has a track a moment after the other, or both when they meet."""
    for other_at in TIMES:
        world = World()
        for time, side, track in sorted([(at, "a", 1), (other_at, "b", 2)]):
            if time > 0:
                world.run(time - world.now)
            (world.a if side == "a" else world.b).set_tracks([track])
        world.run(5)
        assert world.disagreement() == ""
        offers = [time for time, text in world.sent if text.type == "offer"]
        both_at_once = abs(at - other_at) <= world.a.takes + world.fates["a"].delay
        assert len(offers) <= 2 + both_at_once  # (the second is for the other's own track)
        if at == other_at == 0:
            assert len(offers) == 1
        assert offers[0] <= min(at, other_at) + world.a.takes + world.fates["a"].delay


SIDES = st.sampled_from(["a", "b"])
WAITS = st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.6, 1.0, 3.0, 10.0, 40.0])
"""Seconds that pass after something was done."""
SPANS = st.sampled_from([0.01, 0.5, 3.0, 20.0])
AGREED_WITHIN = 150.0


class Network(RuleBasedStateMachine):
    """Two negotiations, and signalling that is slow and loses."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def side(self, name: str) -> Side:
        return self.world.a if name == "a" else self.world.b

    @initialize(literal=st.booleans())
    def begin(self, literal: bool) -> None:
        self.world.b.literal = literal

    @rule(name=SIDES, wait=WAITS)
    def add_track(self, name: str, wait: float) -> None:
        side = self.side(name)
        side.set_tracks([*side.tracks, next(numbers)])
        self.world.run(wait)

    @rule(name=SIDES, index=st.integers(0, 3), wait=WAITS)
    def remove_track(self, name: str, index: int, wait: float) -> None:
        side = self.side(name)
        side.set_tracks([track for at, track in enumerate(side.tracks) if at != index])
        self.world.run(wait)

    @rule(name=SIDES, delay=st.sampled_from([0.02, 0.3, 1.0, 3.0]))
    def delay(self, name: str, delay: float) -> None:
        self.world.fates[name].delay = delay

    @rule(name=SIDES, count=st.integers(1, 2), wait=WAITS)
    def lose(self, name: str, count: int, wait: float) -> None:
        self.world.fates[name].lose = count
        self.world.run(wait)

    @rule(name=SIDES, seconds=st.sampled_from([0.0, 0.4, 2.0, 5.0]))
    def take(self, name: str, seconds: float) -> None:
        self.side(name).takes = seconds

    def teardown(self) -> None:
        world = self.world
        world.mend()
        for _ in range(30):
            world.run(5.0)
            if not world.disagreement() or self.is_excused():
                return
        raise AssertionError(world.disagreement())

    def is_excused(self) -> bool:
        """Return whether somebody has said why they do not agree."""
        return False


class Storm(Network):
    """The same, with everything else that can go wrong."""

    @rule(name=SIDES, picky=st.booleans(), wait=WAITS)
    def refuse(self, name: str, picky: bool, wait: float) -> None:
        self.side(name).picky = picky
        self.world.run(wait)

    @rule(name=SIDES, count=st.integers(1, 2), later=SPANS)
    def repeat(self, name: str, count: int, later: float) -> None:
        self.world.fates[name].repeat, self.world.fates[name].later = count, later

    @rule(name=SIDES, count=st.integers(1, 2), later=SPANS)
    def hold(self, name: str, count: int, later: float) -> None:
        self.world.fates[name].hold, self.world.fates[name].later = count, later

    @rule(names=st.sets(SIDES, min_size=1), wait=WAITS)
    def drop_signalling(self, names: set[str], wait: float) -> None:
        self.world.drop(*map(self.side, sorted(names)))
        self.world.run(wait)

    @rule(name=SIDES, wait=WAITS)
    def restart(self, name: str, wait: float) -> None:
        self.side(name).restart()
        self.world.run(wait)

    @rule(name=SIDES, count=st.integers(1, 12), wait=WAITS)
    def fail(self, name: str, count: int, wait: float) -> None:
        self.side(name).failing = count
        self.world.run(wait)

    @rule(name=SIDES, wait=WAITS)
    def hang_up(self, name: str, wait: float) -> None:
        self.world.hang_up(self.side(name))
        self.world.run(wait)

    @rule(works=st.booleans(), wait=WAITS)
    def path(self, works: bool, wait: float) -> None:
        self.world.works = works
        self.world.run(wait)

    def is_excused(self) -> bool:
        return all(side.given_up or not side.tracks for side in self.world.sides)


class Calm(Network):
    """Slow and lossy signalling alone ends no generation that has time to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(replace(T, media_connect=10_000.0))

    def teardown(self) -> None:
        super().teardown()
        for side in self.world.sides:
            assert (side.machine.generations, side.reports) == (1, [])


Some = settings(max_examples=settings.default.max_examples * 2 // 5)  # (explore: 800)
TestStorm = Storm.TestCase
TestStorm.settings = Some
TestCalm = Calm.TestCase
TestCalm.settings = Some

"""Two connections of ours, in one process, over signalling that may lose, delay and repeat."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiortc import RTCDataChannel

from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import NegotiationFailedError, NotConnectedError
from metered_sync.events import IceServer
from metered_sync.wire import sdp
from metered_sync.wire.signals import (
    Candidate,
    EndOfCandidates,
    SessionDescription,
    Signal,
    TrackMetadata,
    build_signal,
)
from tests.support.connections import FAST, Pair, Side, frames, pair, picture, run, tone, until

Rounds = Callable[[Side, Signal], float | tuple[float, ...] | None]


def is_a(signal: Signal, type_: str) -> bool:
    return isinstance(signal, SessionDescription) and signal.type == type_


def losing(*lost: int, type_: str = "offer") -> Rounds:
    """Return a filter that loses some of the descriptions of a type, by number."""
    numbers = itertools.count()

    def filter_(_side: Side, signal: Signal) -> float | None:
        return None if is_a(signal, type_) and next(numbers) in lost else 0.0

    return filter_


async def messages(channel: RTCDataChannel) -> list[Any]:
    received: list[Any] = []
    channel.on("message", received.append)
    return received


async def exchange(one: RTCDataChannel, other: RTCDataChannel) -> None:
    """Send a message over a channel, once it is open."""
    received = await messages(other)
    await until(lambda: one.readyState == "open", what="open")
    one.send("hello")
    await until(lambda: received == ["hello"], what="hello")


async def all_play(both: Pair, each: int) -> None:
    """Wait until both sides get that many tracks, with frames in all of them."""
    for side in both.sides:
        await until(lambda side=side: len(side.present) == each, what=f"{each} tracks")
    tracks = [track for side in both.sides for track in side.present]
    await asyncio.gather(*map(frames, tracks))


# --- two that connect ------------------------------------------------------------------


def test_tracks_both_ways_and_data_channels() -> None:
    async def test() -> None:
        async with pair() as both:
            camera = [picture(stream_id="camera"), tone(stream_id="camera")]
            both.polite.link.set_tracks(camera)
            both.impolite.link.set_tracks([picture(), tone()])
            await both.connected()
            await all_play(both, 2)
            got = both.impolite.present
            assert [t.id for t in got] == [t.id for t in camera]
            assert {t.stream_id for t in got} == {"camera"}
            assert [t.stream_id for t in both.polite.present] == [None, None]
            channel = await both.polite.link.open_channel("chat", {"ordered": False})
            await until(lambda: both.impolite.channels, what="the channel")
            assert both.impolite.channels[0].label == "chat"
            await exchange(channel, both.impolite.channels[0])
            for side in both.sides:
                assert side.states == ["connecting", "connected"]
                assert (side.errors, side.resets, side.link.generations) == ([], 0, 1)
            stats = await both.polite.link.stats()
            assert stats["paths"] == [{"local": "host", "remote": "host"}]
            assert [len(stats[way]) for way in ("incoming", "outgoing")] == [2, 2]

    run(test())


def test_only_a_data_channel() -> None:
    async def test() -> None:
        async with pair() as both:
            assert both.polite.link.state == "idle"
            channel = await both.impolite.link.open_channel("only", {})
            await both.connected()
            await until(lambda: both.polite.channels, what="the channel")
            await exchange(channel, both.polite.channels[0])
            assert (both.impolite.offers(), both.polite.offers()) == (1, 0)

    run(test())


def test_without_anything_to_say_both_stay_idle() -> None:
    async def test() -> None:
        async with pair() as both:
            for side in both.sides:
                side.link.rebuild(local_id=side.link._local_id)
            await asyncio.sleep(FAST.first_offer * 2)
            for side in both.sides:
                assert (side.link.state, side.states, side.sent) == ("idle", [], [])
                assert side.resets == 0

    run(test())


def test_a_burst_of_changes_is_one_offer() -> None:
    async def test() -> None:
        async with pair() as both:
            link = both.impolite.link
            one, two = picture(), tone()
            link.set_tracks([one])
            link.set_tracks([one, two])
            await link.open_channel("a", {})
            await link.open_channel("b", {})
            await both.connected()
            await until(lambda: len(both.polite.channels) == 2, what="channels")
            assert (both.impolite.offers(), both.polite.offers()) == (1, 0)

    run(test())


@pytest.mark.parametrize("first", ["polite", "impolite"])
def test_who_offers(first: str) -> None:
    async def test() -> None:
        async with pair(greets=False) as both:
            side: Side = getattr(both, first)
            started = time.monotonic()
            side.link.set_tracks([tone()])
            await both.connected()
            waited = time.monotonic() - started
            assert waited >= (FAST.first_offer if first == "polite" else FAST.courtesy)
            assert side.offers() == 1

    run(test())


@pytest.mark.parametrize("polite", ["idle", "sends"])
@pytest.mark.parametrize("impolite", ["idle", "sends"])
def test_two_of_ours_wait_for_no_timer(polite: str, impolite: str) -> None:
    """Nor do their offers cross, where tracks are there when the two meet."""
    timings = replace(FAST, first_offer=60.0, courtesy=60.0)

    async def test() -> None:
        async with pair(timings=timings) as both:
            if polite == "sends":
                both.polite.link.set_tracks([tone()])
            if impolite == "sends":
                both.impolite.link.set_tracks([tone()])
            if polite == impolite == "idle":
                await until(lambda: all(s.link._negotiation.greeted for s in both.sides))
                both.polite.link.set_tracks([tone()])
            await both.connected()
            assert [len(side.greetings) for side in both.sides] == [1, 1]
            first = both.impolite if impolite == "sends" else both.polite
            assert (first.offers(), both.other(first).offers()) == (1, 0)
            ends = [s for side in both.sides for s in side.sent if isinstance(s, EndOfCandidates)]
            assert ends == []
            assert [side.states for side in both.sides] == [["connecting", "connected"]] * 2

    run(test())


def test_the_end_of_candidates_is_told_to_other_clients() -> None:
    async def test() -> None:
        async with pair(greets=False) as both:
            both.impolite.link.set_tracks([tone()])
            await both.connected()
            for side in both.sides:
                await until(lambda side=side: EndOfCandidates() in side.sent, what="the end")

    run(test())


def test_the_polite_one_lets_the_other_go_first() -> None:
    async def test() -> None:
        async with pair(greets=False) as both:
            both.polite.link.set_tracks([tone()])
            await asyncio.sleep(FAST.first_offer / 4)
            both.impolite.link.set_tracks([tone()])
            await both.connected()
            await all_play(both, 1)
            assert (both.polite.offers(), both.impolite.offers()) == (0, 1)

    run(test())


def test_three_tracks_against_an_offer_of_one() -> None:
    async def test() -> None:
        async with pair(timings=replace(FAST, first_offer=30.0)) as both:
            both.polite.link.set_tracks([tone(), picture(), picture()])
            both.impolite.link.set_tracks([tone()])
            await until(lambda: len(both.impolite.present) == 3, what="three tracks")
            await asyncio.gather(*map(frames, both.impolite.present))
            await frames(both.polite.present[0])
            assert [len(s.link.pc.getTransceivers()) for s in both.sides] == [3, 3]
            assert (both.polite.offers(), both.impolite.offers()) == (1, 1)

    run(test())


def test_audio_here_against_only_data_there() -> None:
    async def test() -> None:
        async with pair() as both:
            both.polite.link.set_tracks([tone()])
            channel = await both.impolite.link.open_channel("only", {})
            await until(lambda: both.impolite.present, what="the track")
            await frames(both.impolite.present[0])
            await exchange(channel, both.polite.channels[0])
            assert both.polite.states == ["connecting", "connected"]

    run(test())


def test_a_channel_of_ours_against_an_offer_without() -> None:
    async def test() -> None:
        async with pair() as both:
            channel = await both.polite.link.open_channel("mine", {})
            both.impolite.link.set_tracks([tone()])
            await until(lambda: both.impolite.channels, what="the channel")
            await exchange(channel, both.impolite.channels[0])
            await frames(both.polite.present[0])
            assert [side.resets for side in both.sides] == [0, 0]

    run(test())


def test_a_track_with_metadata_has_a_section_of_its_own() -> None:
    async def test() -> None:
        async with pair() as both:
            both.polite.link.set_tracks([tone(metadata={"role": "mic"})])
            both.impolite.link.set_tracks([tone()])
            await all_play(both, 1)
            directions = [t.currentDirection for t in both.polite.link.pc.getTransceivers()]
            assert directions == ["recvonly", "sendonly"] or directions == ["recvonly", "sendrecv"]

    run(test())


# --- changes ---------------------------------------------------------------------------


def test_removing_and_adding_again() -> None:
    async def test() -> None:
        async with pair() as both:
            sound, video = tone(), picture()
            both.impolite.link.set_tracks([sound, video])
            await until(lambda: len(both.polite.present) == 2, what="two tracks")
            heard, seen = both.polite.present
            await frames(seen)
            both.impolite.link.set_tracks([sound])
            await until(lambda: both.polite.gone == [seen], what="gone")
            stopped = seen.frames
            await frames(heard)
            assert seen.frames <= stopped + 3
            assert both.polite.link.tracks == (heard,)
            both.impolite.link.set_tracks([sound, video])
            await until(lambda: len(both.polite.present) == 2, what="back")
            assert both.polite.present == [heard, seen]
            assert both.polite.first == [heard, seen]
            await frames(seen)
            assert len(both.polite.link.pc.getTransceivers()) == 2

    run(test())


def test_another_track_in_the_place_of_a_removed_one() -> None:
    async def test() -> None:
        async with pair() as both:
            one, two = picture(), picture()
            both.impolite.link.set_tracks([one])
            await until(lambda: both.polite.present, what="a track")
            await frames(both.polite.present[0])
            both.impolite.link.set_tracks([two])
            await until(lambda: both.polite.gone, what="gone")
            await until(lambda: both.polite.present, what="another")
            assert both.polite.present[0].id == two.id
            await frames(both.polite.present[0])
            assert len(both.polite.link.pc.getTransceivers()) == 1

    run(test())


def test_replacing_needs_no_negotiation() -> None:
    async def test() -> None:
        async with pair() as both:
            one, two = picture(), picture()
            both.impolite.link.set_tracks([one])
            await until(lambda: both.polite.present, what="a track")
            seen = both.polite.present[0]
            await frames(seen)
            sent = len(both.impolite.sent)
            both.impolite.link.replace_track(one, two)
            await frames(seen, more=20)
            both.impolite.link.replace_track(two, one)
            await frames(seen, more=20)
            assert len(both.impolite.sent) == sent
            # a later negotiation does not make it another track
            both.impolite.link.replace_track(one, two)
            both.impolite.link.set_tracks([two, tone()])
            await until(lambda: len(both.polite.present) == 2, what="two tracks")
            assert both.polite.present[0] is seen
            assert both.polite.gone == []
            both.impolite.link.replace_track(two, None)
            await until(lambda: both.polite.gone == [seen], what="gone")

    run(test())


# --- signals that are lost, late or many ------------------------------------------------


@pytest.mark.parametrize("type_", ["offer", "answer"])
@pytest.mark.parametrize("first", ["polite", "impolite"])
def test_a_lost_description_is_repeated(type_: str, first: str) -> None:
    async def test() -> None:
        async with pair() as both:
            both.filter = losing(0, 1, type_=type_)
            side: Side = getattr(both, first)
            side.link.set_tracks([tone()])
            await both.connected()
            await all_play_one(both.other(side))
            assert all(side.link.generations == 1 for side in both.sides)

    run(test())


async def all_play_one(side: Side) -> None:
    await until(lambda: side.present, what="a track")
    await frames(side.present[0])


def test_an_answer_to_a_repeated_offer_hides_no_track() -> None:
    # Its answer is slow, so our offer is repeated; meanwhile it has a track to send.
    async def test() -> None:
        async with pair() as both:
            sound = tone()
            both.impolite.link.set_tracks([sound])
            await all_play_one(both.polite)
            both.filter = lambda _side, signal: FAST.answer * 1.5 if is_a(signal, "answer") else 0.0
            answers = sum(is_a(signal, "answer") for signal in both.polite.sent)
            both.impolite.link.set_tracks([sound, picture()])
            await until(
                lambda: sum(is_a(s, "answer") for s in both.polite.sent) > answers, what="an answer"
            )
            both.polite.link.set_tracks([tone(), picture()])
            await until(lambda: len(both.polite.present) == 2, what="two tracks")
            await until(lambda: len(both.impolite.present) == 2, what="two tracks")
            await asyncio.gather(*map(frames, both.impolite.present))
            assert [side.link.generations for side in both.sides] == [1, 1]

    run(test())


def test_a_track_that_has_come_back_while_answers_are_late() -> None:
    # The answer to an offer that was repeated is not one to the next.
    async def test() -> None:
        async with pair() as both:
            both.impolite.link.set_tracks([tone()])
            await all_play_one(both.polite)
            both.filter = lambda _side, signal: FAST.answer * 1.2 if is_a(signal, "answer") else 0.0
            both.impolite.link.set_tracks([])
            await until(lambda: both.polite.gone, what="gone")
            both.impolite.link.set_tracks([tone()])  # in the same section
            await until(lambda: both.polite.present, what="another")
            await frames(both.polite.present[0], timeout=20)

    run(test())


def test_all_has_gone_before_signalling_was_back() -> None:
    async def test() -> None:
        async with pair() as both:
            both.filter = lambda _side, _signal: None
            link = both.impolite.link
            link.set_tracks([tone()])
            await until(both.impolite.offers, what="an offer")
            link.set_tracks([])
            both.filter = lambda _side, _signal: 0.0
            link.rebuild(local_id="b")
            await until(lambda: link.state == "idle", what="idle")
            await asyncio.sleep(FAST.answer * 2)
            assert both.impolite.offers() == 1
            assert [side.errors for side in both.sides] == [[], []]
            link.set_tracks([tone()])
            await both.connected()

    run(test())


def test_an_impolite_first_offer_that_was_lost() -> None:
    # The other side did not know us yet, and makes an offer of its own: which is ignored.
    async def test() -> None:
        timings = replace(FAST, answer=30.0)
        async with pair(timings=timings) as both:
            both.filter = losing(0)
            both.impolite.link.set_tracks([tone()])
            both.polite.link.set_tracks([tone()])
            await both.connected()
            await all_play(both, 1)

    run(test())


def both_offer(both: Pair) -> None:
    """Have each learn of the other's first offer only after it has made its own."""
    both.filter = lambda _side, signal: 0.3 if is_a(signal, "offer") else 0.0
    for side in both.sides:
        side.link._negotiation._schedule.offer_at = 0.0


@pytest.mark.parametrize("metadata", [None, {"n": 1}])
@pytest.mark.parametrize("channels", ["polite", "impolite", "both", "none"])
def test_first_offers_that_cross(channels: str, metadata: dict[str, Any] | None) -> None:
    # As with a peer whose camera is slow to open: it offers just as we stop waiting for that.
    async def test() -> None:
        async with pair() as both:
            both_offer(both)
            both.polite.link.set_tracks([tone(metadata=metadata), picture(metadata=metadata)])
            both.impolite.link.set_tracks([tone()])
            opened = {
                name: await getattr(both, name).link.open_channel("early", {})
                for name in ("polite", "impolite")
                if channels in (name, "both")
            }
            await both.connected()
            await until(lambda: len(both.impolite.present) == 2, what="two tracks")
            await asyncio.gather(*map(frames, both.impolite.present))
            await all_play_one(both.polite)
            for name, channel in opened.items():
                other = both.other(getattr(both, name))
                await until(lambda other=other: other.channels, what="the channel")
                await exchange(channel, other.channels[0])
            assert all(side.offers() >= 1 for side in both.sides)
            for side in both.sides:  # nobody has to begin anew for it
                assert (side.resets, side.link.generations, side.errors) == (0, 1, [])
                assert side.states == ["connecting", "connected"]
            if metadata is None:  # ours took a section of theirs, as it would have without an offer
                kinds = [slot.kind for slot in both.polite.link._sections.slots]
                assert (kinds.count("audio"), kinds.count("video")) == (1, 1)

    run(test())


def test_first_offers_that_cross_and_are_repeated() -> None:
    # What we have withdrawn must not get into an offer that comes a second time.
    async def test() -> None:
        async with pair() as both:
            both_offer(both)
            polite, repeated = both.polite.link, []

            def repeat() -> None:
                if polite.pc.signalingState == "have-remote-offer" and not repeated:
                    repeated.append(next(s for s in both.impolite.sent if is_a(s, "offer")))
                    polite.receive(repeated[0])  # while the first is being answered

            polite.pc.on("signalingstatechange", repeat)
            polite.set_tracks([tone(metadata={"n": 1}), picture(metadata={"n": 2})])
            both.impolite.link.set_tracks([tone(), picture()])
            await all_play(both, 2)
            assert repeated
            for side in both.sides:
                assert (side.resets, side.link.generations, side.errors) == (0, 1, [])

    run(test())


def test_offers_that_cross_where_both_begin_anew() -> None:
    async def test() -> None:
        async with pair() as both:
            for side in both.sides:
                side.link.set_tracks([tone(), picture()])
            await all_play(both, 2)
            for side in both.sides:
                side.link.rebuild(local_id=side.link._local_id)
            both_offer(both)
            offers = [side.offers() for side in both.sides]
            await both.connected()
            await all_play(both, 2)
            for side, before in zip(both.sides, offers, strict=True):
                assert side.offers() > before  # they did cross
                assert (side.resets, side.link.generations, side.errors) == (1, 2, [])
                assert len(side.first) == 2
                assert len(side.link._sections.slots) == 2

    run(test())


def test_offers_that_cross_where_it_begins_with_other_sections() -> None:
    # Its page was loaded again, say. What ours is made of does not fit what it offers.
    async def test() -> None:
        async with pair() as both:
            for side in both.sides:
                side.link.set_tracks([tone(), picture()])
            await all_play(both, 2)
            for side in both.sides:
                side.link.rebuild(local_id=side.link._local_id)
            sections = both.impolite.link._sections
            sections.slots.clear()
            sections.set_tracks([picture(), tone(), picture()])
            both_offer(both)
            await both.connected()
            await all_play_one(both.impolite)
            await until(lambda: len(both.polite.present) == 3, what="three tracks")
            await asyncio.gather(*(frames(t) for side in both.sides for t in side.present))

    run(test())


@pytest.mark.parametrize("metadata", [None, {"n": 1}])
def test_offers_that_cross_on_a_live_connection(metadata: dict[str, Any] | None) -> None:
    async def test() -> None:
        async with pair() as both:
            sound = {side: tone() for side in both.sides}
            for side in both.sides:
                side.link.set_tracks([sound[side]])
            await all_play(both, 1)
            both.filter = lambda _side, signal: 0.2 if is_a(signal, "offer") else 0.0
            channels = []
            for side in both.sides:
                side.link.set_tracks([sound[side], picture(metadata=metadata), picture()])
                channels.append(await side.link.open_channel("one", {}))
            offers = [side.offers() for side in both.sides]
            await all_play(both, 3)
            for side, mine, before in zip(both.sides, channels, offers, strict=True):
                await until(lambda side=side: side.channels, what="its channel")
                await until(lambda mine=mine: mine.readyState == "open", what="ours")
                assert side.offers() > before  # they did cross
                assert len(side.first) == 3
                assert (side.gone, side.errors, side.link.generations) == ([], [], 1)
                assert side.link.state == "connected"

    run(test())


def test_an_offer_right_behind_an_answer() -> None:
    async def test() -> None:
        async with pair() as both:
            # Three of ours, one of theirs: the answer and the next offer come together.
            held: list[Any] = []
            carry = both.carry

            async def hold(side: Side, data: dict[str, Any], signal: Signal) -> None:
                held.append((side, data, signal))
                if is_a(signal, "offer"):
                    for item in held:
                        await carry(*item)
                    held.clear()

            both.polite.carry = hold
            both.polite.link.set_tracks([tone(), picture()])
            both.impolite.link.set_tracks([tone()])
            await until(lambda: len(both.impolite.present) == 2, what="two tracks")
            await asyncio.gather(*map(frames, both.impolite.present))
            assert all(side.link.generations == 1 for side in both.sides)

    run(test())


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
)
def test_signalling_that_does_everything_wrong(seed: int) -> None:
    async def test() -> None:
        rng = random.Random(seed)

        def faults(_side: Side, _signal: Signal) -> float | tuple[float, ...] | None:
            if rng.random() < 0.25:
                return None
            delays = [rng.random() * 0.4 for _ in range(rng.choice([1, 1, 2]))]
            return tuple(delays)

        async with pair() as both:
            both.filter = faults
            tracks: dict[Side, list[Any]] = {side: [] for side in both.sides}
            for _ in range(3):
                for side in rng.sample(both.sides, 2):
                    tracks[side].append(rng.choice([tone, picture])())
                    side.link.set_tracks(tracks[side])
                    await asyncio.sleep(rng.random() * 0.5)
            both.filter = lambda _side, _signal: 0.0
            await both.connected(30)
            await until(lambda: all(len(s.present) == 3 for s in both.sides), 30, "three tracks")
            await asyncio.gather(*(frames(t, timeout=30) for s in both.sides for t in s.present))
            for side in both.sides:
                other = both.other(side)
                assert {t.id for t in side.present} == {t.id for t in tracks[other]}
                assert len(side.first) == 3

    run(test(), 100)


def test_sending_does_not_hold_up_what_comes() -> None:
    async def test() -> None:
        async with pair() as both:
            carry, acknowledged = both.carry, asyncio.Event()

            async def unacknowledged(side: Side, data: dict[str, Any], signal: Signal) -> None:
                await carry(side, data, signal)
                await acknowledged.wait()

            for side in both.sides:
                side.carry = unacknowledged
                side.link.set_tracks([tone(), picture()])
            await all_play(both, 2)
            acknowledged.set()

    run(test())


# --- recovery --------------------------------------------------------------------------


async def kill(side: Side) -> None:
    """Have a peer connection end without a word, as when the network goes."""
    pc = side.link.pc
    for transceiver in pc.getTransceivers()[:1]:
        await transceiver.receiver.transport.transport.stop()


@pytest.mark.parametrize("victim", ["polite", "impolite"])
def test_a_failed_connection_is_made_again(victim: str) -> None:
    async def test() -> None:
        async with pair() as both:
            for side in both.sides:
                side.link.set_tracks([tone(), picture()])
            await all_play(both, 2)
            before = {side: list(side.present) for side in both.sides}
            side: Side = getattr(both, victim)
            await side.link.pc.close()
            await until(lambda: "reconnecting" in side.states, what="reconnecting")
            await both.connected()
            await all_play(both, 2)
            for side in both.sides:
                assert side.present == before[side]
                assert len(side.first) == 2
                assert side.gone == []
                assert side.resets == 1
                assert all(track.restarts == 1 for track in side.present)

    run(test())


def test_a_rebuild_keeps_channels_sections_and_tracks() -> None:
    async def test() -> None:
        async with pair() as both:
            link = both.impolite.link
            await link.open_channel("first", {})
            await until(lambda: both.polite.channels, what="the channel")
            for side in both.sides:  # the section for data is the first one
                side.link.set_tracks([tone(), picture(), picture()])
            await all_play(both, 3)
            for side in both.sides:
                side.link.set_tracks(side.link._sections.tracks[:1])
            await until(lambda: all(len(s.present) == 1 for s in both.sides), what="one left")
            layout = [(slot.kind, slot.mid) for slot in link._sections.slots]
            assert layout[0][0] == "application"
            for side in (both.impolite, both.polite):
                both.polite.channels.clear()
                both.impolite.on_reset_do = lambda: asyncio.ensure_future(
                    link.open_channel("again", {})
                )
                for one in both.sides:
                    one.states.clear()
                side.link.rebuild(local_id=side.link._local_id)
                assert side.states == ["reconnecting"]
                await until(lambda: both.polite.channels, what="the channel, again")
                await both.connected()
                await all_play(both, 1)
                assert [(slot.kind, slot.mid) for slot in link._sections.slots] == layout
            assert all(len(side.first) == 3 for side in both.sides)

    run(test())


def test_a_new_id_changes_who_is_polite() -> None:
    async def test() -> None:
        async with pair() as both:
            both.impolite.link.set_tracks([tone()])
            await both.connected()
            assert not both.impolite.link.polite
            both.impolite.link.rebuild(local_id="0")
            assert both.impolite.link.polite
            await both.connected()

    run(test())


def test_offers_of_two_restarts_at_once() -> None:
    async def test() -> None:
        async with pair() as both:
            both.impolite.link.set_tracks([tone()])
            await all_play_one(both.polite)
            both.impolite.link.rebuild(local_id="b")
            offers = both.impolite.offers()
            await until(lambda: both.impolite.offers() > offers, what="an offer")
            both.impolite.link.rebuild(local_id="b")
            await until(lambda: both.impolite.link.state == "connected", what="connected")
            await both.connected()
            await frames(both.polite.present[0])
            assert both.polite.present == both.polite.first

    run(test())


def test_the_ladder_ends() -> None:
    async def test() -> None:
        timings = replace(FAST, media_connect=0.3)
        async with pair(timings=timings) as both:
            both.filter = lambda _side, _signal: None
            side = both.impolite
            side.link.set_tracks([tone()])
            await until(lambda: side.exhausted, what="exhausted")
            tries = len(timings.ladder) + 1
            assert side.link.generations == tries
            assert len(side.errors) == tries
            assert side.exhausted[0].stage == "answer"
            await asyncio.sleep(1)
            assert (side.link.generations, len(side.exhausted)) == (tries, 1)
            # an offer of the other side, or a rebuild, starts again
            both.filter = lambda _side, _signal: 0.0
            both.polite.link.set_tracks([tone()])
            await both.connected()
            await all_play(both, 1)

    run(test())


def test_an_offer_ends_a_long_pause() -> None:
    async def test() -> None:
        timings = replace(FAST, media_connect=0.5, ladder=(60.0,))
        async with pair(timings=timings) as both:
            both.filter = lambda _side, _signal: None
            both.impolite.link.set_tracks([tone()])
            await until(lambda: both.impolite.errors, what="an error")
            both.filter = lambda _side, _signal: 0.0
            both.polite.link.set_tracks([tone()])
            await both.connected()
            await all_play(both, 1)
            assert both.impolite.link.generations == 2

    run(test())


def test_each_generation_has_an_origin_of_its_own() -> None:
    """Else the first offer of one is taken for an older one of the generation before it."""

    async def test() -> None:
        async with pair() as both:
            link = both.impolite.link
            await link.open_channel("chat", {})
            await both.connected()
            both.impolite.on_reset_do = lambda: asyncio.ensure_future(link.open_channel("chat", {}))
            link.rebuild(local_id="b")
            await until(lambda: both.polite.resets == 1, what="the next generation")
            await both.connected()
            sent = [one for side in both.sides for one in side.sent]
            told = [sdp.parse(one.sdp) for one in sent if isinstance(one, SessionDescription)]
            assert [side.link.generations for side in both.sides] == [2, 2]
            assert len({description.origin_id for description in told}) == 4

    run(test())


def test_a_rebuild_after_the_ladder() -> None:
    async def test() -> None:
        timings = replace(FAST, media_connect=0.2, ladder=(0.0,))
        async with pair(timings=timings) as both:
            both.filter = lambda _side, _signal: None
            both.impolite.link.set_tracks([tone()])
            await until(lambda: both.impolite.exhausted, what="exhausted")
            both.filter = lambda _side, _signal: 0.0
            both.impolite.link.rebuild(local_id="b")
            await both.connected()
            await all_play_one(both.polite)

    run(test())


def test_a_connection_that_never_comes_about() -> None:
    # Without candidates ICE would wait for ever.
    async def test() -> None:
        timings = replace(FAST, media_connect=0.5)

        async with pair(timings=timings) as both:
            both.impolite.link.set_tracks([tone()])

            def no_candidates(side: Side, signal: Signal) -> float | None:
                if not isinstance(signal, SessionDescription):
                    return None
                lines = signal.sdp.split("\r\n")
                kept = [line for line in lines if "candidate" not in line]
                other = both.other(side).link
                other.receive(SessionDescription(signal.type, "\r\n".join(kept)))
                return None

            both.filter = no_candidates
            await until(lambda: both.impolite.errors, what="an error")
            error = both.impolite.errors[0]
            assert isinstance(error, NegotiationFailedError)
            assert error.stage == "ICE"
            assert str(error) == "b-a: the peer has sent no address to reach it at (ICE candidates)"
            both.filter = lambda _side, _signal: 0.0
            await both.connected()

    run(test())


def test_signalling_that_is_away() -> None:
    async def test() -> None:
        async with pair() as both:

            async def away(_side: Side, _data: dict[str, Any], _signal: Signal) -> None:
                raise NotConnectedError("away")

            both.impolite.carry = away
            both.impolite.link.set_tracks([tone()])
            await until(lambda: both.impolite.offers() > 2, what="repeated")
            assert [str(e) for e in both.impolite.errors] == [
                "b-a: the offer could not be sent: away"
            ]
            both.impolite.carry = both.carry
            await both.connected()

    run(test())


# --- what others send -------------------------------------------------------------------


def lone(**options: Any) -> Side:
    """Return a side whose signals go nowhere."""
    side = Side("a", "b", timings=replace(FAST, media_connect=30, answer=30), **options)

    async def nowhere(_side: Side, _data: dict[str, Any], _signal: Signal) -> None:
        pass

    side.carry = nowhere
    return side


@pytest.mark.parametrize(
    "text",
    ["", "v=1", "v=0\r\na=ice-pwd:verysecretverysecret\r\nm=audio", "v=0\r\no=- 1 1 IN IP4 0\r\n"],
)
def test_a_description_that_makes_no_sense(text: str) -> None:
    async def test() -> None:
        side = lone()
        for type_ in ("offer", "answer"):
            side.link.receive(SessionDescription(type_, text))  # type: ignore[arg-type]
        await until(lambda: len(side.errors) == 2, what="errors")
        assert [getattr(e, "stage", "") for e in side.errors] == ["offer", "answer"]
        assert "verysecret" not in str(side.errors)
        assert side.link.state == "idle"
        await side.link.aclose()

    run(test())


def test_signals_out_of_season() -> None:
    async def test() -> None:
        async with pair() as both:
            link = both.polite.link
            link.receive(EndOfCandidates())
            link.receive(Candidate("candidate:1 1 udp 1 127.0.0.1 9 typ host", "0", 0))
            link.receive(Candidate("nonsense", "0", 0, "none"))
            both.impolite.link.set_tracks([tone()])
            await both.connected()
            answer = next(s for s in both.polite.sent if is_a(s, "answer"))
            offer = next(s for s in both.impolite.sent if is_a(s, "offer"))
            assert isinstance(answer, SessionDescription)
            assert isinstance(offer, SessionDescription)
            both.impolite.link.receive(answer)  # nobody asked
            link.receive(SessionDescription("answer", offer.sdp.replace("actpass", "active")))
            both.impolite.link.set_tracks([*both.impolite.link._sections.tracks, picture()])
            await until(lambda: len(both.polite.present) == 2, what="two tracks")
            link.receive(offer)  # the first one, late
            await asyncio.gather(*map(frames, both.polite.present))
            assert len(both.polite.present) == 2
            assert all(s.link.generations == 1 and not s.errors for s in both.sides)

    run(test())


def test_candidates_are_counted_and_belong_to_a_description() -> None:
    async def test() -> None:
        source = lone()
        source.link.set_tracks([tone()])
        await until(source.offers, what="an offer")
        offer = next(s for s in source.sent if isinstance(s, SessionDescription))
        fragment = sdp.parse(offer.sdp).sections[0].ice_ufrag
        kept = [line for line in offer.sdp.split("\r\n") if "candidate" not in line]
        side = lone()
        # early ones wait for theirs; those of nobody, and a nameless end, do no harm
        side.link.receive(Candidate(candidate(1), "0", 0, fragment))
        side.link.receive(Candidate(candidate(2) + f" ufrag {fragment}", "0", 0))
        side.link.receive(Candidate(candidate(3), "0", 0, "other"))
        side.link.receive(SessionDescription("offer", "\r\n".join(kept)))
        side.link.receive(EndOfCandidates())
        side.link.receive(EndOfCandidates("other"))
        side.link.receive(Candidate(candidate(4), "0", None, fragment))
        side.link.receive(Candidate(candidate(5), None, 0))
        side.link.receive(Candidate(candidate(6), "1", 0, fragment))  # of another section
        await until(lambda: len(remote_candidates(side)) == 4, what="four candidates")
        assert remote_candidates(side) == [1, 2, 4, 5]
        for number in range(10, 400):
            side.link.receive(Candidate(candidate(number), "0", 0, fragment))
        side.link.receive(EndOfCandidates(fragment))  # comes after all of them
        transport = side.link.pc.getTransceivers()[0].receiver.transport.transport
        await until(lambda: transport.iceGatherer._remote_candidates_end, what="the end")
        assert len(remote_candidates(side)) == 200 - 1  # (that of another section counted)
        for one in (source, side):
            await one.link.aclose(quiet=True)

    run(test())


def test_a_candidate_that_cannot_be_used_is_told_of() -> None:
    """Unless it belongs to an offer that was ignored."""
    relayed = "candidate:1 1 udp 41885695 192.0.2.1 50001 typ prflx raddr 0.0.0.0 rport 9"

    async def test() -> None:
        async with pair(timings=replace(FAST, media_connect=30.0)) as both:
            link = both.impolite.link
            both.polite.link.set_tracks([tone()])
            await both.connected()
            mid = link._generation.remote.tagged[0]
            for text in (candidate(1), "candidate:nonsense", relayed.replace("udp", "tcp")):
                link.receive(Candidate(text, mid, 0))
            link.receive(Candidate(relayed, "none such", 7))
            link.receive(Candidate(relayed, mid, 0))
            await until(lambda: both.impolite.refused, what="an error")
            (error,) = both.impolite.refused
            assert "prflx" in str(error)

            both.filter = lambda _side, _signal: None
            for side in both.sides:
                side.link.set_tracks([*side.link._sections.tracks, picture()])
            await until(lambda: link._generation.offered, what="our offer")
            await until(lambda: both.polite.offers() > 1, what="an offer that crosses it")
            offer = [s for s in both.polite.sent if is_a(s, "offer")][-1]
            assert isinstance(offer, SessionDescription)
            link.receive(offer)
            link.receive(Candidate(relayed, mid, 0))
            await until(lambda: not link._signals, what="all handled")
            assert both.impolite.refused == [error]
            both.filter = lambda _side, _signal: 0.0
            await until(lambda: len(both.polite.present) == 1, what="its track")
            await until(lambda: not link._negotiation.ignores_offer, what="its answer")
            link.receive(Candidate(relayed, mid, 0))
            await until(lambda: len(both.impolite.refused) == 2, what="another error")

    run(test())


def test_messages_that_are_signals() -> None:
    async def test() -> None:
        async with pair() as both:
            link = both.polite.link
            told = build_signal(TrackMetadata("t", {"n": 1}))
            assert link.take_message(told, direct=True)
            assert both.polite.announced == [TrackMetadata("t", {"n": 1})]
            assert link.take_message(build_signal(EndOfCandidates()), direct=True)
            for data in (told, build_signal(EndOfCandidates())):
                assert not link.take_message(data, direct=False)  # nobody signals to all
            for data in ("hello", None, {"type": "rtc-ice"}):
                assert not link.take_message(data, direct=True)

    run(test())


def test_metadata_goes_ahead_of_the_offer_and_again_after_an_outage() -> None:
    async def test() -> None:
        async with pair() as both:
            side = both.impolite
            track = picture(metadata={"role": "camera"}, stream_id="s")
            side.link.set_tracks([track])
            told = TrackMetadata(track.id, {"role": "camera"}, "s", "video")
            assert side.posted == [told]
            assert not side.sent
            await both.connected()
            side.link.rebuild(local_id="b")
            assert side.posted == [told, told]
            side.link.set_tracks([])
            assert side.posted[2:] == [TrackMetadata(track.id)]

    run(test())


def candidate(number: int) -> str:
    return f"candidate:{number} 1 udp 2122260223 192.0.2.1 {50000 + number} typ host"


def remote_candidates(side: Side) -> list[int]:
    transceivers = side.link.pc.getTransceivers()
    if not transceivers:
        return []
    transport = transceivers[0].receiver.transport.transport
    return [one.port - 50000 for one in transport.getRemoteCandidates()]


def test_a_flood_of_signals_is_bounded() -> None:
    async def test() -> None:
        side = lone()
        for number in range(5000):
            side.link.receive(Candidate(candidate(number), "0", 0, "later"))
        assert len(side.link._signals) <= 1000
        await until(lambda: not side.link._signals, what="all handled")
        assert len(side.link._signals._early) <= 100
        await side.link.aclose()

    run(test())


# --- servers ---------------------------------------------------------------------------


def test_a_turn_server_that_does_not_answer_costs_little() -> None:
    async def test() -> None:
        silent = asyncio.DatagramProtocol()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: silent, ("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        server = IceServer((f"turn:127.0.0.1:{port}",), "user", "pass")
        for _ in range(3):  # (aioice alone waits 5 s; this machine may be busy for a while)
            started = time.monotonic()
            async with pair(servers=(server,), gather_timeout=0.3) as both:
                await both.impolite.link.open_channel("x", {})
                await both.connected()
                took = time.monotonic() - started
            if took < 4:
                break
        assert took < 4
        transport.close()

    run(test())


@pytest.mark.parametrize("server", [None, "turn:127.0.0.1:9"])
def test_relay_only_shows_no_other_path(server: str | None) -> None:
    async def test() -> None:
        servers = () if server is None else (IceServer((server,), "user", "pass"),)
        side = lone(servers=servers, relay_only=True, gather_timeout=0.2)
        side.link.set_tracks([tone()])
        if server is None:
            await until(lambda: side.errors, what="an error")
            assert "needs a TURN server" in str(side.errors[0])
            assert side.offers() == 0
        else:
            await until(side.offers, what="an offer")
            offer = next(s for s in side.sent if isinstance(s, SessionDescription))
            assert "a=candidate" not in offer.sdp
        await side.link.aclose()

    run(test())


# --- the end ---------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [False, True])
def test_closing(quiet: bool) -> None:
    async def test() -> None:
        async with pair() as both:
            for side in both.sides:
                side.link.set_tracks([tone()])
            await all_play(both, 1)
            incoming: IncomingTrack = both.polite.present[0]
            other = both.impolite.link
            started = time.monotonic()
            await both.polite.link.aclose(quiet=quiet)
            assert time.monotonic() - started < 15  # (2 are the limit)
            assert incoming.ended
            assert both.polite.states[-1] == both.polite.link.state == "closed"
            await both.polite.link.aclose()
            if quiet:
                await asyncio.sleep(0.5)
                assert other.state == "connected"
            else:
                await until(lambda: other.state == "reconnecting", what="it notices")
            both.polite.link.rebuild(local_id="a")
            assert both.polite.link.state == "closed"

    run(test())


def test_closing_while_candidates_are_gathered() -> None:
    async def test() -> None:
        side = lone(servers=(IceServer(("turn:127.0.0.1:9",), "u", "p"),), gather_timeout=0.5)
        side.link.set_tracks([tone()])
        await asyncio.sleep(0.1)
        side.link.rebuild(local_id="a")
        await asyncio.sleep(0.1)
        await side.link.aclose()
        assert side.offers() == 0

    run(test())


def test_a_repr() -> None:
    async def test() -> None:
        side = lone()
        assert repr(side.link) == "<RemoteConnection a-b: idle>"
        assert isinstance(side.link, RemoteConnection)
        await side.link.aclose()

    run(test())

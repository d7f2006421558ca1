"""The media connection to one peer of a room, over all its generations.

The two peers agree on who gives way by their ids: the *polite* one's is the smaller. Each
may offer; at first both let the other go first, the polite one for longer. Where offers
cross, the polite one drops its own.

Everything that happens to a connection happens in one task, in order: signals of the
other side (:meth:`RemoteConnection.receive`), what is wanted here, deadlines. Only
replacing a generation (:meth:`RemoteConnection.rebuild`) is immediate; what was being done
on the old one then comes to nothing. Sending a signal takes until it is acknowledged,
and nothing waits for that.

**Losses.** An offer that is not answered is repeated, as is an answer after which no
connection comes about. A generation that does not connect in time, that fails, or that
the other side closes while it stays in the room, is replaced: at once, then after growing
pauses (:attr:`Timings.ladder`), until one connects.

Facts: service documentation, "peer connections"; RFC 8840 (end of candidates).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.engine.rooms.generation import Generation, SupersededError
from metered_sync.engine.rooms.media import ConnectionOptions, MediaOwner, MediaState
from metered_sync.engine.rooms.our_tracks import SentMetadata
from metered_sync.engine.rooms.received_tracks import ReceivedTracks
from metered_sync.engine.rooms.schedule import NEVER, Agenda, now
from metered_sync.engine.rooms.sdp_pins import Pins
from metered_sync.engine.rooms.sdp_repair import Repaired, repair
from metered_sync.engine.rooms.sections import Sections
from metered_sync.engine.rooms.signal_queue import Inbound, Inbox
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import MeteredError, NegotiationFailedError
from metered_sync.wire import sdp
from metered_sync.wire.secrets import scrub
from metered_sync.wire.signals import (
    Candidate,
    EndOfCandidates,
    SessionDescription,
    TrackMetadata,
    build_signal,
    parse_signal,
)
from metered_sync.wire.timings import Timings

__all__ = ["RemoteConnection"]

logger = logging.getLogger("metered_sync")


class RemoteConnection:
    """The connection to one peer. All methods are for the loop's thread.

    Its tasks run in the context it is made in (see ``gather_on`` of ``webrtc.peer_connection``).
    """

    def __init__(
        self,
        owner: MediaOwner,
        *,
        local_id: str,
        remote_id: str,
        label: str,
        timings: Timings,
        options: ConnectionOptions,
    ) -> None:
        """Prepare; nothing is negotiated until there is something to negotiate about."""
        self.state: MediaState = "idle"
        self.generations = 0
        """How many there have been."""
        self._owner = owner
        self._local_id = local_id
        self._remote_id = remote_id
        self._label = label
        self._timings = timings
        self._options = options
        self._sent_metadata = SentMetadata()
        self._sections = Sections()
        self._pins = Pins()
        self._received = ReceivedTracks(owner.on_track, owner.on_track_gone)
        self._inbox = Inbox(label)
        self._agenda = Agenda(timings)
        self._was_connected = False
        self._replay = False
        """Whether a new generation is to be offered, even where nothing has changed."""
        self._ignores = False
        """Whether the other side's latest offer was ignored: its candidates mean nothing."""
        self._wake = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._generation = self._make()
        self._main = asyncio.get_running_loop().create_task(self._run(), name=label)

    def __repr__(self) -> str:
        return f"<RemoteConnection {self._label}: {self.state}>"

    # --- for the owner ---

    @property
    def polite(self) -> bool:
        """Whether this side gives way."""
        return self._local_id < self._remote_id

    @property
    def pc(self) -> RTCPeerConnection:
        """The present generation's peer connection."""
        return self._generation.pc

    @property
    def tracks(self) -> tuple[IncomingTrack, ...]:
        """What the peer sends."""
        return self._received.tracks

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Say what is to be sent: all of it, in order."""
        self._sections.set_tracks(tracks)
        self._tell_metadata()
        self._wake.set()

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send another track in the place of one. With ``None`` it is removed."""
        self._sections.replace(old, new)
        self._tell_metadata()
        self._wake.set()

    def _tell_metadata(self) -> None:
        """Tell the peer the metadata of our tracks, ahead of the offer that brings them."""
        for signal in self._sent_metadata.update(self._sections.tracks):
            self._owner.post(signal)

    async def open_channel(self, label: str, options: Mapping[str, Any]) -> RTCDataChannel:
        """Make a data channel on the present generation; return it while it connects."""
        raw = self.pc.createDataChannel(label, **options)
        self._generation.used = True
        self._wake.set()
        return raw

    def take_message(self, data: Any, *, direct: bool) -> bool:
        """Take a signal out of a direct message; return false where it is none."""
        signal = parse_signal(data) if direct else None
        if isinstance(signal, TrackMetadata):
            self._owner.on_metadata(signal)
        elif signal is not None:
            self.receive(signal)
        return signal is not None

    def receive(self, signal: Inbound) -> None:
        """Take a signal of the peer; it is handled soon, in its turn."""
        self._inbox.put(signal)
        self._wake.set()

    def rebuild(self, *, local_id: str) -> None:
        """Begin a new generation: signalling is back, perhaps under another id.

        What was not used yet is left as it is.
        """
        self._local_id = local_id
        self._sent_metadata.forget()
        self._tell_metadata()
        if self._generation.used and self.state != "closed":
            self._agenda.reset()
            self._inbox.clear()
            self._replace(replay=True)

    async def stats(self) -> dict[str, Any]:
        """Return what was sent and received so far."""
        pc = self.pc
        slots = [slot for slot in self._sections.slots if slot.local and slot.transceiver]
        return {
            "state": self.state,
            "generations": self.generations,
            "connection_state": pc.connectionState,
            "ice_state": pc.iceConnectionState,
            "paths": [path for one in ice.transports(pc) if (path := ice.path(one))],
            "incoming": [track.stats() for track in self.tracks],
            "outgoing": [await slot.stats() for slot in slots],
        }

    async def aclose(self, *, quiet: bool = False) -> None:
        """Close, for good; takes 2 s at the most (:attr:`Timings.close`).

        Args:
            quiet: Do not tell the peer.
        """
        if self.state != "closed":
            self._change_state("closed")
            self._sections.release()
            self._received.end()
            self._dispose(self._generation, quiet=quiet)
            self._wake.set()
        if pending := {self._main, *self._background} - {asyncio.current_task()}:
            await asyncio.wait(pending, timeout=self._timings.close)

    # --- the task ---

    async def _run(self) -> None:
        while self.state != "closed":
            self._wake.clear()
            try:
                until = await self._step()
            except SupersededError:
                continue
            except Exception as error:
                logger.exception("%s failed", self._label)
                self._fail(f"an internal error: {error!r}", "offer")
                continue
            delay = until - now()
            if delay > 0:
                waiting = self._wake.wait()
                try:
                    await asyncio.wait_for(waiting, None if delay == NEVER else delay)
                except asyncio.TimeoutError:
                    pass

    async def _step(self) -> float:
        """Do what is due; return when something else will be, or 0: look again."""
        self._look()
        agenda, time = self._agenda, now()
        if self._inbox:
            await self._handle(self._inbox.take())
            return 0
        if time >= agenda.rebuild_at:
            self._replace(replay=True)
            return 0
        if time >= agenda.watch_at:
            self._fail(*self._what_is_missing())
            return 0
        if self._wants_to_offer():
            if agenda.offer_at == NEVER:
                agenda.offer_at = time + self._courtesy()
                self._begin()
            if time >= agenda.offer_at:
                await self._offer()
                return 0
        if time >= agenda.repeat_at:
            self._repeat()
        offer_at = agenda.offer_at if self._wants_to_offer() else NEVER
        return min(agenda.rebuild_at, agenda.watch_at, offer_at, agenda.repeat_at)

    def _look(self) -> None:
        """Take note of what the peer connection has come to."""
        generation, state, agenda = self._generation, self.pc.connectionState, self._agenda
        if state == "connected":
            if not generation.connected:
                generation.connected = self._was_connected = True
                agenda.reset()
                agenda.watch_at = NEVER
                if generation.offered is None:
                    agenda.repeat_at = NEVER
                self._spawn(generation.start_rest())
            self._change_state("connected")
        elif state in ("failed", "closed") and agenda.rebuild_at == NEVER and not agenda.exhausted:
            if generation.connected:
                self._retry(self._timings.media_closed if state == "closed" else 0.0)
            else:
                self._fail(*self._what_is_missing())

    # --- negotiating ---

    def _wants_to_offer(self) -> bool:
        return (
            self._generation.offered is None
            and not self._is_down()
            and self._agenda.rebuild_at == NEVER
            and not self._agenda.exhausted
            and (self._replay or self._sections.unsettled(self.pc))
        )

    def _courtesy(self) -> float:
        """Return how long the other side may go first."""
        if self._generation.negotiated:
            return 0
        if self.polite:
            return self._timings.first_offer
        return self._timings.courtesy if self.generations == 1 else 0

    async def _offer(self) -> None:
        self._replay, self._agenda.offer_at = False, NEVER
        try:
            text = await self._generation.make_offer()
        except SupersededError:
            raise
        except Exception as error:
            self._fail(*self._explain(error, "no offer can be made", "offer"))
            return
        self._send(SessionDescription("offer", text))
        self._begin()
        self._await()

    def _begin(self) -> None:
        if self.state == "idle":
            self._change_state("connecting")

    def _await(self) -> None:
        """Begin to wait for an answer, or for a connection."""
        self._agenda.expect()
        if not self._generation.connected and self._agenda.watch_at == NEVER:
            self._agenda.watch()

    def _repeat(self) -> None:
        """Send again what may have been lost."""
        generation = self._generation
        if generation.offered is not None and not self._is_down():
            self._send(SessionDescription("offer", generation.offered))
        elif generation.answered is not None and not generation.connected:
            self._send(SessionDescription("answer", generation.answered))
        else:
            self._agenda.repeat_at = NEVER
            return
        self._agenda.repeated()

    async def _handle(self, signal: Inbound) -> None:
        if not isinstance(signal, SessionDescription):
            self._take_candidate(signal)
            return
        try:
            description = repair(sdp.parse(signal.sdp))
        except sdp.SdpError as error:
            self._report(f"its {signal.type} cannot be read: {error}", signal.type)
            return
        if self._inbox.is_past(description.fragment):
            return
        before = self._generation.fragment
        if signal.type == "offer":
            await self._take_offer(description)
        else:
            await self._take_answer(description)
        if self._generation.fragment not in ("", before):
            self._inbox.move(before)

    async def _take_offer(self, offer: Repaired) -> None:
        if self._inbox.has_offer():
            return  # a newer one
        generation, agenda = self._generation, self._agenda
        over = self._is_down() or agenda.rebuild_at != NEVER or agenda.exhausted
        crossing = generation.offered is not None
        if crossing and not over and not self.polite:
            # The other side drops its own for ours, unless it never got that.
            agenda.hasten()
            self._ignores = True
            return
        if not over and self._is_stale(offer):
            return
        self._ignores = False
        anew = over or generation.fragment not in ("", offer.fragment)
        if anew or (crossing and not generation.roll_back(offer)):
            self._replace(replay=False)
        self._begin()
        try:
            answer = await self._answer(offer)
        except SupersededError:
            raise
        except Exception as error:
            self._fail(*self._explain(error, "its offer cannot be answered", "answer"))
            return
        self._replay = False
        agenda.exhausted, agenda.rebuild_at, agenda.offer_at = False, NEVER, NEVER
        self._send(SessionDescription("answer", answer))
        if not self._generation.connected:
            agenda.watch_at = NEVER
            if self._sections.in_use:
                self._await()
        self._welcome()

    def _is_stale(self, offer: Repaired) -> bool:
        """Return whether an offer is older than what we have."""
        known = self._generation.remote
        return (
            known is not None
            and known.original.origin_id == offer.original.origin_id
            and known.original.origin_version > offer.original.origin_version
        )

    def _is_down(self) -> bool:
        # (closing, aiortc changes the one state at first and the other at last)
        pc = self.pc
        return pc.connectionState in ("failed", "closed") or pc.signalingState == "closed"

    async def _answer(self, offer: Repaired) -> str:
        fresh = self._generation.fresh
        try:
            return await self._generation.take_offer(offer)
        except SupersededError:
            raise
        except Exception:
            if fresh:
                raise
            logger.debug("%s: a new generation for an offer", self._label, exc_info=True)
            self._replace(replay=False)
            return await self._generation.take_offer(offer)

    async def _take_answer(self, answer: Repaired) -> None:
        generation = self._generation
        if generation.offered is None:
            if not generation.connected and generation.fragment not in ("", answer.fragment):
                self._fail("an outdated answer came before the right one", "answer", soon=True)
            return
        if self._is_down() or not generation.fits(answer):
            return  # (to an earlier offer)
        self._ignores = False
        if generation.fragment not in ("", answer.fragment):
            self._replace(replay=True)  # it has begun anew, as the async client does for glare
            return
        try:
            await generation.take_answer(answer)
        except SupersededError:
            raise
        except Exception as error:
            self._fail(*self._explain(error, "its answer cannot be taken", "answer"))
            return
        self._agenda.repeat_at = self._agenda.watch_at = NEVER
        if not generation.connected and self._sections.in_use:
            self._agenda.watch()
        self._welcome()

    def _welcome(self) -> None:
        """See which tracks the other side sends now."""
        generation = self._generation
        assert generation.remote is not None
        if not self._received.update(generation.remote, generation.pc.getTransceivers()):
            self._replace(replay=True)

    def _take_candidate(self, signal: Candidate | EndOfCandidates) -> None:
        generation = self._generation
        if self._inbox.belongs(signal, generation.fragment):
            if isinstance(signal, EndOfCandidates):
                generation.end_candidates(signal)
            else:
                generation.add_candidate(signal)

    def _on_refused(self, problem: str) -> None:
        if not self._ignores:
            text = f"{self._label}: an ICE candidate of the peer cannot be used: {problem}"
            self._owner.on_candidate_error(MeteredError(text))

    # --- generations ---

    def _make(self) -> Generation:
        servers = self._options.ice_servers
        if servers is None:
            servers = self._owner.ice_servers()
        generation = Generation(
            self._label,
            self._sections,
            self._pins,
            ice.choose_servers(servers, self._agenda.failures),
            gather_timeout=self._options.gather_timeout,
            relay_only=self._options.relay_only,
            on_refused=self._on_refused,
        )
        self.generations += 1

        def note() -> None:
            self._wake.set()

        def on_channel(raw: RTCDataChannel) -> None:
            if not generation.closed:
                self._owner.on_channel(raw)

        generation.pc.on("connectionstatechange", note)
        generation.pc.on("datachannel", on_channel)
        return generation

    def _replace(self, *, replay: bool) -> None:
        """Begin a new generation."""
        old = self._generation
        self._sections.renew()
        self._received.carry()
        self._generation = self._make()
        # Quietly, lest a peer that is about to hear of the new one takes it for the end.
        self._dispose(old, quiet=True)
        self._agenda.begin()
        self._replay = replay
        self._change_state("reconnecting" if self._was_connected else "connecting")
        self._owner.on_reset()
        self._wake.set()

    def _dispose(self, generation: Generation, *, quiet: bool) -> None:
        generation.closed = True
        self._spawn(generation.close(self._timings.close, quiet=quiet))

    def _fail(self, problem: str, stage: str, *, soon: bool = False) -> None:
        """Give a generation up: report it, and have another one made, now or later."""
        error, agenda = self._report(problem, stage), self._agenda
        known = agenda.exhausted
        if soon or not agenda.spent:
            self._retry(0)
            return
        agenda.give_up()
        if not known:
            self._owner.on_exhausted(
                NegotiationFailedError(
                    f"{self._label}: given up after {agenda.failures} attempts; the last one "
                    f"failed at {error.stage}: {problem}",
                    stage=error.stage,
                )
            )

    def _retry(self, least: float) -> None:
        self._agenda.retry(least)
        self._change_state("reconnecting" if self._was_connected else "connecting")

    def _what_is_missing(self) -> tuple[str, str]:
        generation = self._generation
        if not generation.negotiated:
            return "the peer has not answered", "answer"
        if self.pc.iceConnectionState == "completed":
            return "the DTLS handshake failed", "DTLS"
        if not generation.has_candidates:
            return "the peer has sent no address to reach it at (ICE candidates)", "ICE"
        return "no network path was found (ICE): a firewall may block UDP", "ICE"

    def _explain(self, error: Exception, problem: str, stage: str) -> tuple[str, str]:
        if isinstance(error, NegotiationFailedError):
            return str(error).removeprefix(f"{self._label}: "), error.stage
        logger.debug("%s: %s", self._label, problem, exc_info=True)
        return f"{problem}: {scrub(str(error)) or type(error).__name__}", stage

    def _report(self, problem: str, stage: str) -> NegotiationFailedError:
        error = NegotiationFailedError(f"{self._label}: {problem}", stage=stage)
        self._owner.on_error(error)
        return error

    # --- sending ---

    def _send(self, signal: SessionDescription) -> None:
        self._spawn(self._deliver(self._generation, signal))

    async def _deliver(self, generation: Generation, signal: SessionDescription) -> None:
        try:
            await self._owner.signal(build_signal(signal))
            if not generation.closed:
                await self._owner.signal(build_signal(EndOfCandidates()))
        except MeteredError as error:
            if not generation.closed and not generation.unheard:
                generation.unheard = True
                self._report(f"the {signal.type} could not be sent: {error}", signal.type)
        except Exception:
            logger.exception("%s: sending failed", self._label)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=self._label)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _change_state(self, state: MediaState) -> None:
        if state != self.state != "closed":
            self.state = state
            self._owner.on_state(state)

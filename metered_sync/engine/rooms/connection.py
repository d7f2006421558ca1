"""Carry out the negotiation with one peer of a room, over all generations of its connection.

What is to be done is decided in :mod:`~metered_sync.engine.rooms.negotiation`. Everything that
happens to a connection happens in one task, in order: signals of the other side, what is wanted
here, deadlines. Only replacing a generation (:meth:`RemoteConnection.rebuild`) is immediate;
what was being done on the old one then comes to nothing. Sending a signal takes until it is
acknowledged, and nothing waits for that.

Facts: docs/protocol/rooms.md; RFC 8840 (end of candidates).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Literal

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.engine.logs import logging_errors
from metered_sync.engine.rooms.generation import Generation, SupersededError
from metered_sync.engine.rooms.media import ConnectionOptions, MediaOwner
from metered_sync.engine.rooms.negotiation.events import (
    Action,
    ActionFailed,
    AnswerCame,
    AnswerTaken,
    AwaitedAction,
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
from metered_sync.engine.rooms.negotiation.machine import Negotiation
from metered_sync.engine.rooms.negotiation.schedule import NEVER
from metered_sync.engine.rooms.opening_channels import OpeningChannels
from metered_sync.engine.rooms.our_tracks import SentMetadata
from metered_sync.engine.rooms.received_tracks import ReceivedTracks
from metered_sync.engine.rooms.sdp_pins import Pins
from metered_sync.engine.rooms.sections import Sections
from metered_sync.engine.rooms.signal_queue import Inbound, SignalQueue
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import Repaired, UnfitTrack, repair, unfit_tracks
from metered_sync.errors import MeteredError, NegotiationFailedError
from metered_sync.wire import sdp
from metered_sync.wire.secrets import clear_locals, scrub
from metered_sync.wire.signals import (
    EndOfCandidates,
    Hello,
    SessionDescription,
    TrackMetadata,
    build_signal,
    parse_signal,
)
from metered_sync.wire.states import PeerConnectionState
from metered_sync.wire.timings import Timings

__all__ = ["RemoteConnection"]

logger = logging.getLogger("metered_sync")
PAUSE_AFTER_ERROR = 1.0
"""Seconds before a connection goes on after an internal error, which may come again at once."""
_PROBLEMS: dict[type[AwaitedAction], tuple[str, str]] = {
    MakeOffer: ("no offer can be made", "offer"),
    MakeAnswer: ("its offer cannot be answered", "answer"),
    TakeAnswer: ("its answer cannot be taken", "answer"),
}
"""The problem and the stage that are reported where an action fails."""


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
        self.state: PeerConnectionState = "idle"
        self.unfit: tuple[UnfitTrack, ...] = ()
        """The tracks that the peer sends and that cannot be received."""
        self._owner = owner
        self._local_id = local_id
        self._remote_id = remote_id
        self._label = label
        self._timings = timings
        self._options = options
        self._sent_metadata = SentMetadata()
        self._sections = Sections()
        self._pins = Pins()
        self._received = ReceivedTracks(
            owner.on_track, owner.on_track_gone, owner.on_track_ended, timings, options.max_pixels
        )
        self._signals = SignalQueue(label)
        self._negotiation = Negotiation(timings, polite=self.polite)
        self._channels = OpeningChannels(label, self._sections)
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
    def generations(self) -> int:
        """How many generations there have been."""
        return self._negotiation.generations

    @property
    def pc(self) -> RTCPeerConnection:
        """The present generation's peer connection."""
        return self._generation.pc

    @property
    def tracks(self) -> tuple[IncomingTrack, ...]:
        """The tracks that the peer sends."""
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
        """Make a data channel on the present generation; return it while it connects.

        Where the peer refuses it, there is an ``error`` event before the ``close``.
        """
        raw = self._channels.open(self._generation, label, options)
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
        self._signals.put(signal)
        self._wake.set()

    def rebuild(self, *, local_id: str) -> None:
        """Begin a new generation: signalling is back, perhaps under another id.

        What was not used yet is left as it is.
        """
        self._local_id = local_id
        self.unfit = ()
        self._sent_metadata.forget()
        self._tell_metadata()
        if self._generation.used:
            self._signals.clear()
        self._tell_now(Rebuild(self.polite, self._generation.used))

    def end_tracks(self, error: BaseException | None) -> None:
        """End what the peer sends: it is gone for good, or we are."""
        self._received.end(error)

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
            self._tell_now(Closing())
            self._sections.release()
            self._received.close()
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
                clear_locals(error)
                logger.exception("%s failed", self._label)
                self._tell_now(InternalError(f"an internal error: {error!r}"))
                until = _now() + PAUSE_AFTER_ERROR
            delay = until - _now()
            if delay > 0:
                waiting = self._wake.wait()
                try:
                    await asyncio.wait_for(waiting, None if delay == NEVER else delay)
                except asyncio.TimeoutError:
                    pass

    async def _step(self) -> float:
        """Do what is due; return when something else will be, or 0: look again."""
        if await self._tell(self._observe()):
            return 0
        if self._signals:
            await self._handle(self._signals.take())
            return 0
        return 0 if await self._tell(Tick()) else self._negotiation.wake_at

    def _observe(self) -> Observed:
        """Look at the peer connection and the sections."""
        generation, pc = self._generation, self.pc
        state: Any = pc.connectionState
        if pc.signalingState == "closed" and state not in ("failed", "closed"):
            state = "closing"
        if generation.path_died and self._owner.signalling_is_up:
            # (Nothing could be made anew until it is; meanwhile the path may come back.)
            state = "failed"
        return Observed(
            state,
            unsettled=self._sections.unsettled(pc),
            empty=self._sections.are_empty(pc),
            ice_completed=pc.iceConnectionState == "completed",
            has_candidates=generation.has_candidates,
        )

    async def _handle(self, signal: Inbound) -> None:
        generation = self._generation
        if isinstance(signal, Hello):
            await self._tell(HelloCame(signal.offers))
            return
        if not isinstance(signal, SessionDescription):
            if self._signals.belongs(signal, generation.fragment):
                if isinstance(signal, EndOfCandidates):
                    generation.end_candidates(signal)
                else:
                    generation.add_candidate(signal)
            return
        try:
            parsed, is_answer = sdp.parse(signal.sdp), signal.type == "answer"
            formats = self._sections.formats(agreed=not is_answer)
            remote = repair(parsed, generation.remote, answer=is_answer, formats=formats)
        except sdp.SdpError as error:
            self._report(f"its {signal.type} cannot be read: {error}", signal.type)
            return
        if self._signals.is_outdated(signal, remote.fragment):
            return
        origin, before = remote.original, generation.fragment
        about = RemoteDescription(remote.fragment, origin.origin_id, origin.origin_version)
        if signal.type == "offer":
            is_answered = generation.has_answered(remote)
            can_roll_back = generation.can_roll_back(remote)
            await self._tell(OfferCame(about, is_answered, can_roll_back), remote)
        else:
            fits, differs = generation.fits(remote), generation.differs(remote)
            await self._tell(AnswerCame(about, fits, differs), remote)
        if self._generation.fragment not in ("", before):
            self._signals.move_on(before)
        if not self._negotiation.ignores_offer:
            self._note_unfit(unfit_tracks(origin))
        if self._sections.refuses_data:
            self._channels.refuse()

    def _note_unfit(self, unfit: tuple[UnfitTrack, ...]) -> None:
        """Tell of tracks that cannot be received, those aside that were told of before."""
        before, self.unfit = self.unfit, unfit
        for track in dict.fromkeys(unfit):
            if track not in before:
                self._report(f"its {track.kind} cannot be received: {track.problem}", "offer")

    # --- carrying out what the negotiation asks for ---

    async def _tell(self, event: Event, remote: Repaired | None = None) -> bool:
        """Tell of an event, do what follows, and tell of what comes of that.

        Args:
            event: The event.
            remote: The description that it is about.

        Returns:
            Whether anything was done.
        """
        actions = self._negotiation.handle(event, _now())
        for action in actions:
            if isinstance(action, AwaitedAction):
                await self._tell(await self._negotiate(action, remote), remote)
            else:
                self._carry_out(action)
        return bool(actions)

    def _tell_now(self, event: Event) -> None:
        """Tell of an event that no negotiating follows."""
        for action in self._negotiation.handle(event, _now()):
            self._carry_out(action)

    async def _negotiate(self, action: AwaitedAction, remote: Repaired | None) -> Event:
        """Make or take a description; return what has come of it."""
        generation = self._generation
        try:
            if isinstance(action, MakeOffer):
                await generation.make_offer()
                return OfferMade()
            assert remote is not None
            if isinstance(action, MakeAnswer):
                await generation.take_offer(remote)
                return OfferAnswered(self._sections.in_use)
            await generation.take_answer(remote)
            for problem in self._sections.take_problems():
                self._report(problem, "answer")
            return AnswerTaken(self._sections.in_use, self._sections.refused)
        except SupersededError:
            raise
        except NegotiationFailedError as error:
            return ActionFailed(str(error).removeprefix(f"{self._label}: "), error.stage)
        except Exception as error:
            problem, stage = _PROBLEMS[type(action)]
            logger.debug("%s: %s", self._label, problem, exc_info=True)
            return ActionFailed(f"{problem}: {scrub(str(error)) or type(error).__name__}", stage)

    def _carry_out(self, action: Action) -> None:
        owner, generation = self._owner, self._generation
        match action:
            case Greet(offers):
                owner.post(build_signal(Hello(offers)))
            case Send("offer"):
                self._send("offer", generation.offered)
            case Send("answer"):
                self._send("answer", generation.answered)
            case RollBack():
                generation.roll_back()
            case Replace():
                self._replace()
            case StartMedia():
                self._spawn(generation.start_rest())
                generation.watch_path(self._timings, self._on_path_death)
            case UpdateTracks() if generation.remote is not None:
                received = self._received.update(generation.remote, self.pc.getTransceivers())
                if not received:
                    self._tell_now(TracksDiffer())
            case ChangeState(state):
                self.state = state
                owner.on_state(state)
            case TellReset():
                owner.on_reset()
            case Report(problem, stage):
                self._report(problem, stage)
            case GiveUp(problem, stage):
                text = f"{self._label}: {problem}"
                owner.on_exhausted(NegotiationFailedError(text, stage=stage))

    def _report(self, problem: str, stage: str) -> None:
        error = NegotiationFailedError(f"{self._label}: {problem}", stage=stage)
        self._owner.on_error(error)

    # --- generations ---

    def _make(self) -> Generation:
        servers = self._options.ice_servers
        if servers is None:
            servers = self._owner.ice_servers()
        generation = Generation(
            self._label,
            self._sections,
            self._pins,
            ice.choose_servers(servers, self._negotiation.failures),
            gather_timeout=self._options.gather_timeout,
            relay_only=self._options.relay_only,
            ca_file=self._options.ca_file,
            on_refused=self._on_refused,
        )

        def note() -> None:
            self._wake.set()

        def on_channel(raw: RTCDataChannel) -> None:
            if not generation.closed:
                with logging_errors(f"{self._label}: a data channel"):  # (aiortc would close)
                    self._owner.on_channel(raw)

        generation.pc.on("connectionstatechange", note)
        generation.pc.on("datachannel", on_channel)
        return generation

    def _replace(self) -> None:
        """Put a new generation in the place of the present one."""
        old = self._generation
        self._sections.renew()
        self._received.carry()
        self._generation = self._make()
        # Quietly, lest a peer that is about to hear of the new one takes it for the end.
        self._dispose(old, quiet=True)
        self._wake.set()

    def _dispose(self, generation: Generation, *, quiet: bool) -> None:
        generation.closed = True
        self._spawn(generation.close(self._timings.close, quiet=quiet))

    def _on_path_death(self) -> None:
        logger.info("%s: nothing comes over its path any more: another is looked for", self._label)
        self._wake.set()

    def _on_refused(self, problem: str) -> None:
        if not self._negotiation.ignores_offer:
            text = f"{self._label}: an ICE candidate of the peer cannot be used: {problem}"
            self._owner.on_candidate_error(MeteredError(text))

    # --- sending ---

    def _send(self, type_: Literal["offer", "answer"], text: str | None) -> None:
        assert text is not None
        self._spawn(self._deliver(self._generation, SessionDescription(type_, text)))

    async def _deliver(self, generation: Generation, signal: SessionDescription) -> None:
        try:
            await self._owner.signal(build_signal(signal))
            if not (generation.closed or self._negotiation.greeted):
                await self._owner.signal(build_signal(EndOfCandidates()))
        except MeteredError as error:
            if not generation.closed and not generation.unheard:
                generation.unheard = True
                self._report(f"the {signal.type} could not be sent: {error}", signal.type)
        except Exception as error:
            clear_locals(error)
            logger.exception("%s: sending failed", self._label)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=self._label)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _now() -> float:
    return asyncio.get_running_loop().time()

"""List every interval of the protocols, as one frozen value.

The client's engine and the local cloud take a :class:`Timings` instead of
writing numbers into their code; tests shrink the intervals with
:func:`dataclasses.replace`. All values are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_TIMINGS", "Timings"]


@dataclass(frozen=True, repr=False)
class Timings:
    """Intervals of signalling, rooms and SFU, in seconds."""

    # --- signalling, client side ---
    welcome: float = 10.0
    """How long to wait for ``welcome`` after the upgrade before giving the socket up."""
    open: float = 15.0
    """How long an attempt to reconnect may take up to the upgrade."""
    close: float = 2.0
    """How long a close handshake may take."""
    farewell: float = 0.25
    """The same for a connection that was given up before its welcome."""
    ping_fraction: float = 1 / 3
    """An idle client pings each ``inactivity_timeout * ping_fraction``, at least ``ping_floor``."""
    ping_floor: float = 1.0
    overdue: float = 3.0
    """An acknowledgement that takes this long while nothing else comes makes the client ping;
    if nothing has come after as long again, the connection is lost."""
    slow_floor: float = 30.0
    """The shortest reconnect delay after close code 4010 (over the concurrent limit)."""
    replay_retry: float = 2.0
    """Pause between attempts to repeat a subscription after a reconnect."""
    going_away_default: float = 1.0
    """The reconnect delay when ``going_away`` names none."""
    going_away_max: float = 300.0
    """The longest delay a ``going_away`` may ask for."""

    # --- rooms ---
    reconcile: float = 10.0
    """How long a room waits for the list of its members before it subscribes once more."""
    limbo: float = 10.0
    """How long a member is kept that has left while its media goes on."""
    limbo_closed: float = 0.4
    """The same from the moment its media are closed, too: a browser that reconnects closes its
    old peer connection just before presence says that it is back."""
    track_return: float = 2.0
    """How long a track that a member sends no more may come again, before it ends."""
    room_limbo: float = 10.0
    """The same in a room whose media go through the SFU, where they do not depend on signalling."""
    room_ask: float = 3.0
    """How long a track of such a room is missing on the SFU before its member is asked for its
    state."""
    room_search: float = 60.0
    """How long such a track is looked for, before it is given up until the next state."""
    room_spread: float = 0.5
    """A state for newcomers that cannot be sent to each of them is sent to all within this time."""
    room_speech: float = 0.5
    """The shortest time between two changes of what a member says about its speaking."""
    early: float = 5.0
    """How long messages of a peer are kept that presence has not announced yet."""

    # --- rooms and SFU, client side ---
    last_frames: float = 0.5
    """How long a track whose source has ended is sent on: until its last frames have arrived."""

    # --- signalling, local cloud ---
    server_ping: float = 30.0
    """WebSocket ping interval; a socket that is silent until the next one is cut off."""
    expiry_margin: float = 0.25
    """A token's connection is closed this long before its ``exp``."""
    attempt_window: float = 60.0
    """The time in which one address may make ``MAX_ATTEMPTS`` attempts to connect."""

    # --- rooms ---
    first_offer: float = 0.8
    """How long the polite one of two peers waits for the other's first offer."""
    courtesy: float = 0.3
    """How long the impolite one does: a browser offers at once, polite or not, and Chromium (156)
    may never find candidates on a peer connection if an offer that crosses its first one comes
    before it has found any."""
    answer: float = 2.5
    """An offer without an answer, or an answer without effect, is repeated after this time."""
    answer_max: float = 30.0
    """The longest pause between two repetitions; it doubles from ``answer`` on."""
    crossing: float = 0.5
    """The same where the other side's offer has crossed ours, so that it may have missed ours."""
    media_connect: float = 15.0
    """How long a peer connection may take to connect."""
    media_closed: float = 0.5
    """How long after the other side closed it a peer connection is made anew, if it stays."""
    path_silence: float = 2.0
    """A media path over which nothing comes for this long is probed: any packet would do, and
    the other end answers a probe (STUN) even where it has nothing to send."""
    path_probe: float = 2.0
    """If nothing comes for this long after that, the path is dead, and another one is looked for.
    (ICE's own consent takes 30 s to say so.)"""
    ladder: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)
    """The pauses before attempts to make a lost peer connection again; no more after them."""

    # --- SFU, local cloud ---
    stun_silence: float = 12.0
    """A session whose client sends no STUN for this long has ended."""
    offer_pending: float = 10.0
    """An SFU offer that stays unanswered for this long is withdrawn."""
    first_packet_hold: float = 2.0
    """How long ``GET …/tracks`` may wait for an announced track's first packet."""
    renack: float = 0.04
    """Interval at which missing packets are asked for again."""
    renack_give_up: float = 0.6
    """A packet missing for this long is not asked for any more."""
    pli_throttle: float = 0.3
    """At most one key-frame request per track in this interval."""
    report: float = 1.0
    """Interval of receiver reports and REMB towards publishers."""
    source_silence: float = 1.0
    """A track may go on under another SSRC once the old one was silent for this long."""

    # --- SFU, client side ---
    lost: float = 0.05
    """How long after its loss a media connection is given up."""
    gather: float = 5.0
    """How long candidate gathering may take before the offer goes out as it is."""
    watch: float = 1.0
    """How often a session looks after itself and its tracks."""
    quiet: float = 2.0
    """Nothing of a track, or of a session, for this long: ask the SFU what became of it."""
    dead: float = 5.0
    """Nothing of a session for this long, and the SFU's API cannot be reached: it is lost."""
    quiet_max: float = 10.0
    """The longest pause between two such questions, as they are answered "it is there"."""
    attempt: float = 15.0
    """How long an attempt to make a lost session again may take."""
    recover_delay: float = 0.25
    """The pause after the first attempt that failed; it doubles from then on."""
    recover_delay_max: float = 10.0
    recover_budget: float = 120.0
    """How long a lost session is tried to be made again, from its loss to giving up."""
    search: float = 30.0
    """How long a track whose publisher is gone is looked for by its name."""
    settle: float = 5.0
    """How long after it was found a track may vanish, and is looked for on: publishers that have
    another session may take back the first round of their tracks."""
    names: float = 0.5
    """How long a subscription waits for the names of its tracks, where their ids are known only."""
    request_interval: float = 0.05
    """The shortest time between two requests of a search: the service's are not many."""
    poll: float = 0.1
    """The pause after the first round of a search that found nothing; it grows by half."""
    poll_max: float = 1.0

    def __repr__(self) -> str:
        """Show what is not the protocols': the signature of a client shows this value, too."""
        given = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        return f"Timings({', '.join(f'{name}={v!r}' for name, v, usual in given if v != usual)})"


DEFAULT_TIMINGS = Timings()
"""The intervals as the protocols have them; only tests take others."""

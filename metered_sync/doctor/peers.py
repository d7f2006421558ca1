"""Examine rooms: two peers of this process connect, directly and through relays."""

from __future__ import annotations

import statistics
import time

from metered_sync.doctor.outcome import Outcome, failed, ok, skipped, warning, words
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.servers import ice_servers, relays
from metered_sync.doctor.surroundings import missing_webrtc
from metered_sync.errors import MeteredError, MeteredTimeoutError
from metered_sync.events import DataChannelOpened

__all__ = ["examine_peers"]

PATIENCE = 8.0
"""Seconds that two peers may take to connect."""
PINGS = 5


def examine_peers(patient: Patient) -> Outcome:
    """Connect two peers on the scratch channel and send through a data channel."""
    if missing_webrtc():
        return skipped(f"{missing_webrtc()} missing: run  pip install 'metered_sync[webrtc]'")
    if patient.settings.is_one_peer:
        return skipped("two peers need a key: with one token both would be the same peer")
    needed = [name.capitalize() for name in patient.lacking if name != "publish"]
    if needed:
        return skipped(f"not run, because the key lacks {' and '.join(needed)}, which rooms need")
    ice_servers(patient)
    direct = _meet(patient, "direct", relay_only=False)
    if not relays(patient):
        return direct
    relayed = _meet(patient, "relayed", relay_only=True)
    what = f"{direct.what}; {relayed.what}"
    remedies = "; ".join(filter(None, (direct.remedy, relayed.remedy)))
    if direct.status == relayed.status == "ok":
        return ok(what)
    both = direct.status == relayed.status
    return failed(what, remedies) if both else warning(what, remedies)


def _meet(patient: Patient, way: str, *, relay_only: bool) -> Outcome:
    from metered_sync.peer import MeteredPeer

    options = {
        **patient.check_key(),
        "ice_servers": patient.servers,
        "relay_only": relay_only,
        "gather_timeout": 2.0,
        "timeout": patient.within(PATIENCE),
    }
    channel = f"{patient.channel}-{way}"
    began = time.monotonic()
    left = _Left(patient.within(PATIENCE))
    try:
        with MeteredPeer(**options) as near, MeteredPeer(**patient.check_key() | options) as far:
            near.join(channel, timeout=left.seconds)
            far.join(channel, timeout=left.seconds)
            there = near.wait_for_peer(far.peer_id, timeout=left.seconds)
            here = far.wait_for_peer(near.peer_id, timeout=left.seconds)
            with here.events(DataChannelOpened) as opened:
                channel_there = there.create_data_channel("doctor", timeout=left.seconds)
                answering = opened.get(timeout=left.seconds).channel
            connected = time.monotonic() - began
            times = []
            for number in range(PINGS):
                sent = time.monotonic()
                channel_there.send(str(number), timeout=left.seconds)
                answering.send(answering.get(timeout=left.seconds), timeout=left.seconds)
                channel_there.get(timeout=left.seconds)
                times.append(time.monotonic() - sent)
            paths = there.stats(timeout=left.seconds)["paths"]
    except MeteredTimeoutError:
        return failed(f"{way}: not connected within {left.all:.0f} s", _remedy(relay_only))
    except MeteredError as error:
        return failed(f"{way}: {words(error)}", _remedy(relay_only))
    path = "/".join(sorted({kind for one in paths for kind in one.values()})) or "no path"
    trip = statistics.median(times) * 1000
    return ok(f"{way}: connected in {connected:.1f} s ({path}), {trip:.0f} ms there and back")


def _remedy(relay_only: bool) -> str:
    if relay_only:
        return "see the stage turn: media between two strict networks need a relay"
    return "let UDP through this machine's firewall, or use TURN servers"


class _Left:
    """What is left of one meeting's time."""

    def __init__(self, seconds: float) -> None:
        self.all = seconds
        self._end = time.monotonic() + seconds

    @property
    def seconds(self) -> float:
        return max(0.0, self._end - time.monotonic())

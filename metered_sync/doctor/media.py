"""Examine the SFU: its answers over HTTP, and a numbered pattern there and back."""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from metered_sync.doctor.outcome import Outcome, Trouble, failed, graded, ok, skipped, words
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.servers import ice_servers
from metered_sync.doctor.surroundings import missing_webrtc
from metered_sync.errors import MeteredError, MeteredTimeoutError, NegotiationFailedError, SfuError
from metered_sync.sfu_api import SfuApi

__all__ = ["examine_media", "examine_sfu"]

PATIENCE = 5.0
"""Seconds that an HTTP answer may take."""
CONNECTING = 6.0
"""Seconds in which the first picture must be there."""
WATCHING = 2.0
"""Seconds for which pictures are counted."""
FPS = 20
LOSS_WARNING, LOSS_FAILURE = 0.02, 0.20
"""Parts of the packets that are lost, before they are asked for again."""
_UDP = "let UDP out of this network (the SFU's ports are in its answer), or use another network"
_REFUSALS = {
    401: (
        "the SFU refuses the secret (401)",
        "check METERED_SFU_SECRET: copy it again from the dashboard",
    ),
    403: (
        "the SFU does not let this secret use the app (403)",
        "check that METERED_SFU_APP_ID and METERED_SFU_SECRET are of one app",
    ),
    404: (
        "the SFU has no such app (404)",
        "check METERED_SFU_APP_ID, and METERED_SFU_URL if it is set",
    ),
}
"""What an HTTP status means, and the remedy."""


def _keys(patient: Patient) -> dict[str, Any]:
    """Return the arguments of a client; ends the stage where the keys are not there, or wrong."""
    settings = patient.settings
    problem = settings.problem("sfu")
    if problem is not None:
        raise Trouble(skipped(f"not run, because of the keys: {problem.what}"))
    if not settings.has_sfu:
        raise Trouble(skipped("no SFU app: METERED_SFU_APP_ID and METERED_SFU_SECRET are not set"))
    return {
        "app_id": settings.get("sfu_app_id"),
        "secret": settings.get("sfu_secret"),
        "url": settings.get("sfu_url"),
        "ca_file": settings.ca_file,
    }


def examine_sfu(patient: Patient) -> Outcome:
    """Ask the SFU for its sessions; tell a wrong secret from a wrong app."""
    try:
        with SfuApi(**_keys(patient)) as api:
            sessions = api.sessions(timeout=patient.within(PATIENCE))
    except ValueError as error:
        return failed(words(error), "set METERED_SFU_URL to an origin, or unset it")
    except MeteredTimeoutError:
        remedy = "check METERED_SFU_URL, and the firewall for outgoing HTTPS"
        return failed(f"the SFU does not answer within {PATIENCE:g} s", remedy)
    except SfuError as error:
        known = _REFUSALS.get(error.status or 0)
        if known is not None:
            return failed(*known)
        what, _, remedy = re.sub("^SfuApi: [^:]*: ", "", words(error)).rpartition("; ")
        return failed(what or remedy, remedy if what else "check METERED_SFU_URL")
    return ok(f"the SFU accepts the app and its secret ({len(sessions)} sessions)")


@dataclass
class _Seen:
    """What came back of the pattern."""

    connected: float
    """Seconds until the first picture."""
    numbers: list[int] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    """Seconds from the encoder to here."""
    stats: dict[str, Any] = field(default_factory=dict)
    paths: list[dict[str, str]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The part of the packets that was missing when later ones came."""
        missed, received = self.stats["packets_missed"], self.stats["packets_received"]
        return float(missed / max(1, missed + received))


def examine_media(patient: Patient) -> Outcome:
    """Publish a numbered pattern, subscribe to it, and count what comes back."""
    keys = _keys(patient)
    if missing_webrtc():
        return skipped(f"{missing_webrtc()} missing: run  pip install 'metered_sync[webrtc]'")
    try:
        servers = ice_servers(patient)
    except Trouble:
        servers = ()
    try:
        seen = _watch(patient, keys | {"ice_servers": servers})
    except NegotiationFailedError as error:
        return failed(f"no media connection to the SFU ({error.stage})", _UDP)
    except MeteredTimeoutError as error:
        where = "no picture came back" if "frame" in str(error) else "no media connection"
        return failed(f"{where} from the SFU in time", _UDP)
    except MeteredError as error:
        return failed(words(error), "see the stage sfu, and try again")
    path = "/".join(sorted({one["local"] for one in seen.paths})) or "unknown path"
    age = f"{statistics.median(seen.ages) * 1000:.0f} ms old" if seen.ages else "of unknown age"
    what = (
        f"first picture after {seen.connected:.1f} s, then {len(seen.numbers)} of "
        f"{WATCHING * FPS:.0f}, {age}, {seen.loss:.0%} of the packets lost, path {path}"
    )
    if not seen.numbers:
        return failed(what, _UDP)
    remedy = "the way to the SFU loses packets: use a cable, another network, or a lower bitrate"
    return graded(seen.loss, LOSS_WARNING, LOSS_FAILURE, what, remedy)


def _watch(patient: Patient, options: dict[str, Any]) -> _Seen:
    from metered_sync.sfu import SfuClient
    from metered_sync.testing import PatternSource, read_number

    began = time.monotonic()
    until_first = began + patient.within(CONNECTING)

    def left() -> float:
        return max(0.0, until_first - time.monotonic())

    with (
        SfuClient(**options, timeout=left(), recover=False) as near,
        SfuClient(**options, timeout=left(), recover=False) as far,
        PatternSource(320, 240, FPS) as source,
    ):
        publication = near.publish(source, timeout=left())
        track = far.subscribe(publication, timeout=left())
        with track.frames(mode="fifo", maxsize=256) as frames:
            frames.get(timeout=left())
            seen = _Seen(time.monotonic() - began)
            end = time.monotonic() + patient.within(WATCHING)
            while time.monotonic() < end:
                try:
                    frame: Any = frames.get(timeout=max(0.0, end - time.monotonic()))
                except MeteredTimeoutError:
                    break
                number = read_number(frame.to_ndarray(format="gray"))
                if number is not None:
                    seen.numbers.append(number)
                    captured = source.captured(number)
                    if captured is not None:
                        seen.ages.append(time.monotonic() - captured)
        seen.stats = track.stats()
        seen.paths = far.stats()["paths"]
    return seen

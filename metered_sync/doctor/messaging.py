"""Examine messaging: the welcome, the key's permissions, the round trip, the plan, a reconnect."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from metered_sync.control import ControlPlane, Usage
from metered_sync.doctor.outcome import Outcome, Trouble, failed, graded, ok, warning, words
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.refusals import PLAN_REMEDY
from metered_sync.errors import (
    ControlPlaneError,
    MeteredError,
    MeteredTimeoutError,
    ServerRequestError,
)
from metered_sync.events import Connected

__all__ = [
    "examine_permissions",
    "examine_reconnect",
    "examine_roundtrip",
    "examine_welcome",
]

PATIENCE = 3.0
"""Seconds that each request may take."""
PINGS = 5
ROUND_TRIP_WARNING = 0.3
"""Seconds."""
USAGE_WARNING = 0.8
"""The part of the plan's messages that is used."""
RECONNECT_PATIENCE = 6.0
"""Seconds in which a lost connection must be there again."""
_USES = {
    "subscribe": "listening, and rooms",
    "publish": "publishing",
    "send": "direct messages, and rooms: without it their media never connect",
    "presence": "rosters, and rooms: without it nobody sees the others",
}
"""What each permission is needed for."""


def examine_welcome(patient: Patient) -> Outcome:
    """Connect, and wait for the server's welcome."""
    client = patient.client
    welcome = patient.welcome
    assert welcome is not None
    facts = [f"connected to {patient.settings.url} as {client.peer_id}"]
    if welcome.expires_at is not None:
        facts.append(f"the token is valid for {welcome.expires_at - time.time():.0f} s")
    return ok(", ".join(facts))


def examine_permissions(patient: Patient) -> Outcome:
    """Try each permission on a channel that nobody else uses."""
    client, channel = patient.client, patient.channel

    def watch() -> None:
        client.subscribe(channel, timeout=patient.within(PATIENCE))

    def see() -> None:
        client.roster(channel, timeout=patient.within(PATIENCE))

    def publish() -> None:
        client.publish(channel, {"doctor": True}, timeout=patient.within(PATIENCE))

    def send() -> None:
        client.send(client.peer_id or "", {"doctor": True}, timeout=patient.within(PATIENCE))

    lacking = [name for name, act in (("subscribe", watch), ("publish", publish), ("send", send))
               if not _may(patient, act)]  # fmt: skip
    if "subscribe" not in lacking and not _shows(see):
        lacking.append("presence")
    patient.lacking = lacking
    if not lacking:
        return ok(f"publish, subscribe, presence and send are granted (tried on {channel})")
    names = " and ".join(name.capitalize() for name in lacking)
    needs = "; ".join(f"{name.capitalize()} is for {_USES[name]}" for name in lacking)
    what = f"the key lacks {names} ({needs})"
    remedy = f"grant {names} to the key in the dashboard, or name it in the token's permissions"
    return failed(what, remedy) if "send" in lacking else warning(what, remedy)


def _may(patient: Patient, act: Callable[[], None]) -> bool:
    """Return whether a request is carried out, or would be but for its permission."""
    try:
        act()
    except ServerRequestError as error:
        if error.code == "action_not_permitted":
            return False
        if error.code in ("channel_not_authorized", "channel_reserved"):
            raise Trouble(
                warning(
                    f"the key does not cover the channel {patient.channel}, so nothing was tried",
                    "name one that it covers (channel=…), or extend the key's channel patterns",
                )
            ) from None
        if error.code == "over_message_quota":
            raise Trouble(_used_up()) from None
        raise Trouble(failed(words(error), "see the key's settings in the dashboard")) from None
    except MeteredError as error:
        remedy = "see the stages before, and try again"
        raise Trouble(failed(f"a request was not answered ({words(error)})", remedy)) from None
    return True


def _shows(see: Callable[[], None]) -> bool:
    """Return whether the members of the channel are shown in time."""
    try:
        see()
    except MeteredTimeoutError:
        return False
    return True


def _used_up() -> Outcome:
    return failed("the plan's messages are used up (over_message_quota)", PLAN_REMEDY)


def examine_roundtrip(patient: Patient) -> Outcome:
    """Measure publishing with its acknowledgement; ask for the plan's usage, with a secret key."""
    client, times = patient.client, []
    try:
        for number in range(PINGS):
            began = time.monotonic()
            client.publish(patient.channel, {"doctor": number}, timeout=patient.within(PATIENCE))
            times.append(time.monotonic() - began)
    except ServerRequestError as error:
        if error.code == "over_message_quota":
            return _used_up()
        if not times and error.code != "action_not_permitted":
            return warning(words(error), "see the stage permissions")
        times = []
    except MeteredTimeoutError:
        remedy = "check the network for loss and delay, and the service's status"
        return failed(f"a message was not acknowledged within {PATIENCE:g} s", remedy)
    except MeteredError as error:
        return failed(words(error), "try again, and see the service's status")
    typical = statistics.median(times) if times else 0.0
    trip = f"{typical * 1000:.0f} ms to the service and back" if times else "not allowed to publish"
    usage = _usage(patient)
    share = 0.0 if usage is None else usage.messages_used / max(1, _most(usage))
    if usage is not None:
        trip += f"; {usage.messages_used} of {_most(usage)} messages used ({share:.0%})"
    if share >= 1 and usage is not None and not usage.plan.overages_enabled:
        return failed(f"the plan's messages are used up; {trip}", PLAN_REMEDY)
    if share >= USAGE_WARNING:
        return warning(f"the plan's messages are nearly used up; {trip}", PLAN_REMEDY)
    remedy = "look at the network in between: a VPN, a proxy, a busy line"
    return graded(typical, ROUND_TRIP_WARNING, float("inf"), trip, remedy)


def _most(usage: Usage) -> int:
    return usage.plan.max_messages_per_period


def _usage(patient: Patient) -> Usage | None:
    """Return the plan's usage; ``None`` without a secret key. A refusal ends the stage."""
    settings = patient.settings
    if not settings.has_pair or settings.problem("pair") is not None:
        return None
    key_id, secret = settings.get("key_id"), settings.get("key_secret")
    try:
        with ControlPlane(
            key_id, secret, url=settings.control_url, ca_file=settings.ca_file
        ) as control:
            return control.usage(timeout=patient.within(PATIENCE))
    except ControlPlaneError as error:
        if error.status in (401, 403):
            raise Trouble(
                failed(
                    f"the control plane refuses the key {key_id} (HTTP {error.status})",
                    "check that METERED_KEY_ID and METERED_KEY_SECRET are of one pair, of this "
                    "service, and not revoked",
                )
            ) from None
        outcome = warning(f"the plan's usage is not known ({words(error)})", "try again later")
        raise Trouble(outcome) from None
    except MeteredTimeoutError:
        outcome = warning("the control plane does not answer in time", "try again later")
        raise Trouble(outcome) from None


def examine_reconnect(patient: Patient) -> Outcome:
    """Lose the connection on purpose, and wait until it is there again."""
    client = patient.client
    began = time.monotonic()
    with client.events(Connected) as welcomes:
        client.lose_connection()
        try:
            welcomes.get(timeout=patient.within(RECONNECT_PATIENCE))
        except MeteredError as error:
            ended = isinstance(error, MeteredTimeoutError)
            return failed(
                f"a lost connection did not come back within {RECONNECT_PATIENCE:g} s"
                if ended
                else f"a lost connection did not come back ({words(error)})",
                "check what limits connections: the plan, the token's provider, a firewall",
            )
    return ok(f"a lost connection came back after {(time.monotonic() - began) * 1000:.0f} ms")

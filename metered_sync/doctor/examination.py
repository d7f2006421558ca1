"""Run the stages in their order, each in its own time, and note what they find."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from metered_sync.bridge.deadline import Deadline
from metered_sync.doctor.ice import examine_ice, examine_stun, examine_turn
from metered_sync.doctor.media import examine_media, examine_sfu
from metered_sync.doctor.messaging import (
    examine_permissions,
    examine_reconnect,
    examine_roundtrip,
    examine_welcome,
)
from metered_sync.doctor.outcome import Outcome, Trouble, failed, skipped, words
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.peers import examine_peers
from metered_sync.doctor.reach import examine_clock, examine_dns, examine_tcp, examine_tls
from metered_sync.doctor.report import Finding, Report, verdict_of
from metered_sync.doctor.settings import Settings
from metered_sync.doctor.surroundings import examine_environment, examine_keys
from metered_sync.errors import MeteredError, MeteredTimeoutError
from metered_sync.wire.secrets import hides_arguments

if TYPE_CHECKING:
    from metered_sync.local import LocalCloud
    from metered_sync.wire.control import Token
    from metered_sync.wire.turn import GivenIceServers

__all__ = ["STAGES", "run"]

TIME_IN_ALL = 28.0
"""Seconds after which no stage begins, nor waits any longer; closing comes on top."""
VERDICT = "verdict"
EXAMINE: dict[str, Callable[[Patient], Outcome]] = {
    "environment": examine_environment,
    "keys": examine_keys,
    "dns": examine_dns,
    "tcp": examine_tcp,
    "tls": examine_tls,
    "welcome": examine_welcome,
    "clock": examine_clock,
    "permissions": examine_permissions,
    "roundtrip": examine_roundtrip,
    "reconnect": examine_reconnect,
    "ice": examine_ice,
    "stun": examine_stun,
    "turn": examine_turn,
    "peers": examine_peers,
    "sfu": examine_sfu,
    "media": examine_media,
}
STAGES = (*EXAMINE, VERDICT)
"""The ids of all stages, in the order in which they run."""
OFFLINE = ("environment", "keys")
"""The stages that send nothing."""
NEEDS = {
    "tcp": ("dns",),
    "tls": ("tcp",),
    "welcome": ("tls",),
    "clock": ("tls",),
    "permissions": ("welcome",),
    "roundtrip": ("welcome",),
    "reconnect": ("welcome",),
    "stun": ("ice",),
    "turn": ("ice",),
    "peers": ("welcome", "permissions"),
    "media": ("sfu",),
}
"""Which stages must not have failed for one to be run."""


@hides_arguments
def run(
    *,
    only: str | Iterable[str] | None = None,
    offline: bool = False,
    local: bool | LocalCloud = False,
    on_stage: Callable[[Finding], object] | None = None,
    channel: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    token_provider: Callable[[], str | Token] | str | None = None,
    key_id: str | None = None,
    key_secret: str | None = None,
    sfu_app_id: str | None = None,
    sfu_secret: str | None = None,
    sfu_url: str | None = None,
    turn_app: str | None = None,
    turn_api_key: str | None = None,
    turn_url: str | None = None,
    ice_servers: GivenIceServers | None = None,
    ca_file: str | None = None,
) -> Report:
    """Examine, stage by stage, whether everything works from here, and say what to do if not.

    It takes at most 30 seconds, and mostly a few. A stage is not run where one that it depends
    on has failed; all others are. Keys and addresses come from the environment, unless given.

    Args:
        only: The ids of the stages to run (:data:`STAGES`), or one text with commas.
        offline: Run ``environment`` and ``keys`` alone, which send nothing.
        local: A :class:`~metered_sync.local.LocalCloud` to examine; ``True`` starts one for this.
        on_stage: Called with each :class:`Finding` as soon as it is there, on this thread.
        channel: The channel that is tried; one of its own unless given.
        url: The messaging service's origin (``METERED_URL``).
        api_key: A publishable key (``METERED_KEY``).
        token_provider: Instead of a key: a token, or a function that returns one.
        key_id: The id of a secret key (``METERED_KEY_ID``).
        key_secret: Its secret (``METERED_KEY_SECRET``).
        sfu_app_id: The SFU app (``METERED_SFU_APP_ID``).
        sfu_secret: Its secret (``METERED_SFU_SECRET``).
        sfu_url: The SFU's origin (``METERED_SFU_URL``).
        turn_app: The TURN app (``METERED_TURN_APP``).
        turn_api_key: Its key that asks for servers (``METERED_TURN_API_KEY``).
        turn_url: The TURN service's origin, where it is another.
        ice_servers: ICE servers to be examined, instead of those that clients are told.
        ca_file: A file of certificates (PEM) to be trusted.

    Returns:
        What was found. No secret is in it.

    Raises:
        ValueError: ``only`` names a stage that there is not.
    """
    chosen = _chosen(only, offline)
    given = {
        "url": url,
        "key": api_key,
        "token": token_provider if isinstance(token_provider, str) else None,
        "key_id": key_id,
        "key_secret": key_secret,
        "sfu_app_id": sfu_app_id,
        "sfu_secret": sfu_secret,
        "sfu_url": sfu_url,
        "turn_app": turn_app,
        "turn_api_key": turn_api_key,
        "turn_url": turn_url,
    }
    with contextlib.ExitStack() as open_objects:
        cloud = _cloud(local, open_objects)
        settings = Settings.gather(
            given,
            cloud,
            token_provider=token_provider if callable(token_provider) else None,
            ca_file=ca_file,
            ice_servers=ice_servers,
        )
        patient = open_objects.enter_context(Patient(settings, Deadline(TIME_IN_ALL), channel))
        return Report(tuple(_findings(patient, chosen, on_stage)))


def _chosen(only: str | Iterable[str] | None, offline: bool) -> tuple[str, ...]:
    """Return the stages to run, in their order."""
    if only is None:
        return OFFLINE if offline else STAGES
    names = [name.strip() for name in (only.split(",") if isinstance(only, str) else only)]
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise ValueError(
            f"only names {', '.join(map(repr, unknown)) or 'no stage'}; the stages are "
            f"{', '.join(STAGES)}"
        )
    return tuple(one for one in STAGES if one in names and (not offline or one in OFFLINE))


def _cloud(local: bool | LocalCloud, open_objects: contextlib.ExitStack) -> LocalCloud | None:
    if local is True:
        from metered_sync.local import LocalCloud

        return open_objects.enter_context(LocalCloud())
    return local or None


def _findings(
    patient: Patient, chosen: Iterable[str], on_stage: Callable[[Finding], object] | None
) -> list[Finding]:
    findings: list[Finding] = []
    roots: dict[str, str] = {}  # the stages that cannot be relied on, and which one's failure it is
    for stage in chosen:
        began = time.monotonic()
        outcome = (
            _verdict(findings) if stage == VERDICT else _outcome(patient, stage, findings, roots)
        )
        if outcome.status == "failed":
            roots[stage] = stage
        finding = Finding(
            stage,
            outcome.status,
            (time.monotonic() - began) * 1000,
            patient.settings.hide(outcome.what),
            patient.settings.hide(outcome.remedy),
        )
        findings.append(finding)
        if on_stage is not None:
            on_stage(finding)
    return findings


def _outcome(
    patient: Patient, stage: str, findings: list[Finding], roots: dict[str, str]
) -> Outcome:
    """Run a stage, where nothing that it needs has failed."""
    needed = next((roots[name] for name in NEEDS.get(stage, ()) if name in roots), None)
    if needed is not None:
        roots[stage] = needed
        return skipped(f"not run, because {needed} failed")
    if not patient.deadline.left() and stage not in OFFLINE:
        return skipped("not run: no time was left")
    try:
        return EXAMINE[stage](patient)
    except Trouble as trouble:
        return trouble.outcome
    except MeteredTimeoutError:
        return failed("it took too long", "check the network, and try again")
    except (MeteredError, OSError, ValueError) as error:
        return failed(words(error), "check the settings, and see the stages before")


def _verdict(findings: list[Finding]) -> Outcome:
    """Sum up what was found."""
    verdict = verdict_of(findings)
    if verdict == "ok":
        return Outcome("ok", "everything that was tried works")
    parts = []
    for status, words_for_it in (("failed", "failed"), ("warning", "not as it should be")):
        names = [finding.stage for finding in findings if finding.status == status]
        if names:
            parts.append(f"{', '.join(names)} {words_for_it}")
    first = next(finding.stage for finding in findings if finding.status == verdict)
    return Outcome(verdict, "; ".join(parts), f"begin with {first}: the rest may follow from it")

"""Test what is said of keys that are refused, of what a key lacks, of plans that are used up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from metered_sync import doctor
from metered_sync.doctor import messaging, patient
from metered_sync.local import LocalCloud
from tests.support.scripted_service import ScriptedServer

KEY = "pk_live_0123456789abcdef"


def given(cloud: LocalCloud, **options: Any) -> dict[str, Any]:
    return {"url": cloud.url, "api_key": cloud.publishable_key} | options


def test_a_wrong_key(shared_cloud: LocalCloud) -> None:
    report = doctor.run(only="welcome,roundtrip", **given(shared_cloud, api_key=KEY))
    found = report.stage("welcome")
    assert found.status == "failed"
    assert "code 4001" in found.what
    assert found.remedy.startswith("it is wrong, of another app, or revoked: copy it again from")
    assert report.stage("roundtrip").what == "not run, because welcome failed"
    assert KEY not in report.to_json()


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (4001, "key revoked", "or revoked: copy it again from the dashboard, or make a new one"),
        (4002, "token expired", "mint a new one; if it is new, set this machine's clock"),
        (4010, "over limit", "take a larger plan (or overages) in the dashboard"),
        (4012, "suspended", "see the service's dashboard, or ask its support"),
    ],
)
def test_a_connection_that_is_closed_at_once(code: int, reason: str, remedy: str) -> None:
    with ScriptedServer(welcome=lambda number: None) as server:

        def close() -> None:
            server.accept().close(code, reason)

        closing = threading.Thread(target=close)
        closing.start()
        found = doctor.run(only="welcome", url=server.url, api_key=KEY).stage("welcome")
        closing.join()
    assert found.status == "failed"
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "the key's allowed origins in the dashboard"),
        (404, "check METERED_URL: an origin like wss://host"),
        (429, "wait a minute, and look for a program that connects again and again"),
        (503, "check the url and the service's status"),
    ],
)
def test_an_upgrade_that_is_refused(status: int, remedy: str) -> None:
    with ScriptedServer(status=lambda number: status) as server:
        found = doctor.run(only="welcome", url=server.url, api_key=KEY).stage("welcome")
    assert found.status == "failed"
    assert remedy in found.remedy or remedy in found.what


def test_a_token_provider_that_fails(shared_cloud: LocalCloud) -> None:
    def provide() -> str:
        raise LookupError("sk_secret_0123456789")

    options = {"url": shared_cloud.url, "token_provider": provide}
    report = doctor.run(only="welcome", **options)  # type: ignore[arg-type]
    assert "the token_provider failed: LookupError" in report.stage("welcome").what
    assert report.stage("welcome").remedy.startswith("mend the token_provider")
    assert "0123456789" not in str(report)


def test_a_server_without_a_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "CONNECTING", 0.5)
    with ScriptedServer(welcome=lambda number: None) as server:
        found = doctor.run(only="welcome", url=server.url, api_key=KEY).stage("welcome")
    assert found.status == "failed"
    assert "check that METERED_URL leads to a messaging service" in found.remedy


def test_the_halves_of_two_keys(shared_cloud: LocalCloud) -> None:
    """The control plane alone sees it, where a publishable key connects."""
    options = given(shared_cloud, key_id=shared_cloud.key_id, key_secret="sk_secret_" + "0" * 20)
    report = doctor.run(only="welcome,roundtrip", **options)
    found = report.stage("roundtrip")
    assert report.stage("welcome").status == "ok"
    assert found.status == "failed"
    assert "are of one pair, of this service, and not revoked" in found.remedy


@pytest.mark.parametrize(
    ("lacking", "status", "remedy"),
    [
        ("send", "failed", "grant Send to the key in the dashboard"),
        ("presence", "warning", "grant Presence to the key in the dashboard"),
        ("publish", "warning", "grant Publish to the key in the dashboard"),
        ("subscribe", "warning", "grant Subscribe to the key in the dashboard"),
    ],
)
def test_a_key_that_lacks_a_permission(
    monkeypatch: pytest.MonkeyPatch, lacking: str, status: str, remedy: str
) -> None:
    monkeypatch.setattr(messaging, "PATIENCE", 1.0)
    granted = [one for one in ("publish", "subscribe", "presence", "send") if one != lacking]
    with LocalCloud(permissions=granted) as cloud:
        report = doctor.run(only="permissions,roundtrip,peers", **given(cloud))
    found = report.stage("permissions")
    assert (found.status, remedy in found.remedy) == (status, True)
    assert f"lacks {lacking.capitalize()}" in found.what
    assert report.stage("roundtrip").status == "ok"
    peers = report.stage("peers")
    if lacking == "send":
        assert peers.what == "not run, because permissions failed"
    elif lacking == "publish":
        assert peers.status == "ok"
    else:
        assert peers.what.startswith(f"not run, because the key lacks {lacking.capitalize()}")


def test_all_permissions(shared_cloud: LocalCloud) -> None:
    found = doctor.run(only="permissions", **given(shared_cloud)).stage("permissions")
    assert (found.status, found.remedy) == ("ok", "")


def test_a_channel_that_the_key_does_not_cover(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.token_options("ann", channels=["rooms/*"])
    found = doctor.run(only="permissions", **options).stage("permissions")
    assert found.status == "warning"
    assert found.remedy.startswith("name one that it covers (channel=…)")
    found = doctor.run(only="permissions", channel="rooms/1", **options).stage("permissions")
    assert found.status == "ok"


def test_a_plan_that_is_used_up() -> None:
    with LocalCloud(max_messages=3) as cloud:
        found = doctor.run(only="roundtrip", **given(cloud)).stage("roundtrip")
        assert found.status == "failed"
        assert "used up" in found.what
        assert found.remedy.startswith("wait for the next period, or take a larger plan")
        found = doctor.run(only="welcome", **given(cloud)).stage("welcome")  # refused from now on
        assert found.status == "failed"
        assert "take a larger plan" in found.remedy


def test_a_plan_that_is_nearly_used_up() -> None:
    with LocalCloud(max_messages=6) as cloud:
        pair = {"key_id": cloud.key_id, "key_secret": cloud.key_secret}
        found = doctor.run(only="roundtrip", **given(cloud, **pair)).stage("roundtrip")
    assert found.status == "warning"
    assert "5 of 6 messages used (83%)" in found.what
    assert "take a larger plan" in found.remedy


def test_a_slow_way(monkeypatch: pytest.MonkeyPatch, doctors_cloud: LocalCloud) -> None:
    monkeypatch.setattr(messaging, "PINGS", 1)
    doctors_cloud.faults.delay(0.35)
    try:
        found = doctor.run(only="roundtrip", **given(doctors_cloud)).stage("roundtrip")
    finally:
        doctors_cloud.faults.delay(0)
    assert found.status == "warning"
    assert found.remedy.startswith("look at the network in between")


def test_acknowledgements_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch, doctors_cloud: LocalCloud
) -> None:
    monkeypatch.setattr(messaging, "PATIENCE", 0.5)
    doctors_cloud.faults.hold_acks(20)
    try:
        found = doctor.run(only="roundtrip", **given(doctors_cloud)).stage("roundtrip")
    finally:
        doctors_cloud.faults.hold_acks(0)
    assert found.status == "failed"
    assert "check the network for loss and delay" in found.remedy


def test_a_connection_that_comes_back(shared_cloud: LocalCloud) -> None:
    found = doctor.run(only="reconnect", **given(shared_cloud)).stage("reconnect")
    assert found.status == "ok"
    assert "came back after" in found.what


def test_a_connection_that_does_not_come_back() -> None:
    def status(number: int) -> int | None:
        return None if number == 0 else 401

    with ScriptedServer(status=status) as server:
        found = doctor.run(only="reconnect", url=server.url, api_key=KEY).stage("reconnect")
    assert found.status == "failed"
    assert found.remedy.startswith("check what limits connections")

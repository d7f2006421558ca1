"""Test what is said of the SFU: refusals, pictures that do not arrive, packets that are lost."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync import doctor
from metered_sync.doctor import media
from metered_sync.local import LocalCloud
from tests.support.coturn import free_port
from tests.support.scripted_http import ScriptedHttp

SECRET = "sfu_secret_0123456789abcdef"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "WATCHING", 1.0)


def given(cloud: LocalCloud, **options: Any) -> dict[str, Any]:
    return {
        "sfu_app_id": cloud.sfu_app_id,
        "sfu_secret": cloud.sfu_secret,
        "sfu_url": cloud.http_url,
    } | options


def test_without_keys_it_is_skipped() -> None:
    report = doctor.run(only="sfu,media")
    assert [finding.status for finding in report.stages] == ["skipped"] * 2
    assert report.exit_status == 0


def test_a_wrong_secret(shared_cloud: LocalCloud) -> None:
    report = doctor.run(only="sfu,media", **given(shared_cloud, sfu_secret=SECRET))
    found = report.stage("sfu")
    assert found.status == "failed"
    assert found.remedy.startswith("check METERED_SFU_SECRET")
    assert report.stage("media").what == "not run, because sfu failed"
    assert SECRET not in report.to_json()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check METERED_SFU_SECRET: copy it again from the dashboard"),
        (403, "check that METERED_SFU_APP_ID and METERED_SFU_SECRET are of one app"),
        (404, "check METERED_SFU_APP_ID, and METERED_SFU_URL if it is set"),
    ],
)
def test_what_the_sfu_refuses(scripted: ScriptedHttp, status: int, remedy: str) -> None:
    scripted.script.append((status, {}, b'{"error": "no"}'))
    options = {"sfu_app_id": "app", "sfu_secret": SECRET, "sfu_url": scripted.origin}
    found = doctor.run(only="sfu", **options).stage("sfu")
    assert (found.status, found.remedy) == ("failed", remedy)


def test_an_sfu_that_is_not_there() -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    options = {"sfu_app_id": "app", "sfu_secret": SECRET, "sfu_url": origin}
    found = doctor.run(only="sfu", **options).stage("sfu")
    assert found.what == f"no answer from {origin}: connection refused"
    assert found.remedy == "check the url and the network"


@pytest.mark.slow
def test_pictures_arrive(shared_cloud: LocalCloud) -> None:
    found = doctor.run(only="media", **given(shared_cloud)).stage("media")
    assert found.status == "ok", found
    assert "0% of the packets lost, path host" in found.what


def test_pictures_that_do_not_arrive(
    monkeypatch: pytest.MonkeyPatch, doctors_cloud: LocalCloud
) -> None:
    monkeypatch.setattr(media, "CONNECTING", 2.0)
    doctors_cloud.faults.lose_media(1)
    try:
        found = doctor.run(only="media", **given(doctors_cloud)).stage("media")
    finally:
        doctors_cloud.faults.lose_media(0)
    assert found.status == "failed"
    assert "no picture came back" in found.what
    assert found.remedy.startswith("let UDP out of this network")


def test_packets_that_are_lost(doctors_cloud: LocalCloud) -> None:
    doctors_cloud.faults.lose_media(0.3)
    try:
        found = doctor.run(only="media", **given(doctors_cloud)).stage("media")
    finally:
        doctors_cloud.faults.lose_media(0)
    assert found.status == "failed", found
    assert "of the packets lost" in found.what
    assert found.remedy.startswith("the way to the SFU loses packets")

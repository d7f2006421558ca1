"""Test whole examinations: which stages run, what a report shows, and that no secret is in it."""

from __future__ import annotations

import json
import time

import pytest

from metered_sync import doctor
from metered_sync.local import LocalCloud
from tests.doctor.test_reach import swallowing
from tests.support.coturn import SECRET, free_port

KEY = "pk_live_0123456789abcdef"


def test_all_is_well_with_a_local_cloud(turn_port: int) -> None:
    urls = [f"stun:127.0.0.1:{turn_port}", f"turn:127.0.0.1:{turn_port}?transport=tcp"]
    seen: list[doctor.Finding] = []
    with LocalCloud(ice_servers=urls, turn_secret=SECRET) as cloud:
        report = doctor.run(local=cloud, on_stage=seen.append)
        secrets = [
            *(cloud.publishable_key, cloud.key_secret, cloud.sfu_secret, cloud.turn_api_key),
            *(cloud.turn_secret_key, cloud.turn_secret),
        ]
        assert cloud.control_plane().usage().concurrent_now == 0  # all is closed
    assert tuple(seen) == report.stages
    assert [finding.stage for finding in report.stages] == list(doctor.STAGES)
    statuses = {finding.stage: finding.status for finding in report.stages}
    assert statuses.pop("tls") == "skipped"
    assert set(statuses.values()) == {"ok"}, report
    assert (report.verdict, report.exit_status) == ("ok", 0)
    shown = str(report) + report.to_json() + report._repr_html_() + repr(report)
    assert not [secret for secret in secrets if secret in shown]
    assert "credential" not in shown


def test_the_forms_of_a_report() -> None:
    findings = (
        doctor.Finding("keys", "ok", 1.25, "a < b", ""),
        doctor.Finding("dns", "warning", 2.0, "slow", "wait"),
        doctor.Finding("sfu", "skipped", 0.0, "no app", ""),
    )
    report = doctor.Report(findings)
    assert json.loads(report.to_json()) == {
        "verdict": "warning",
        "stages": [
            {"stage": "keys", "status": "ok", "ms": 1.2, "what": "a < b", "remedy": ""},
            {"stage": "dns", "status": "warning", "ms": 2.0, "what": "slow", "remedy": "wait"},
            {"stage": "sfu", "status": "skipped", "ms": 0.0, "what": "no app", "remedy": ""},
        ],
    }
    assert report.exit_status == 3
    lines = str(report).splitlines()
    assert [line[0] for line in lines] == ["✔", "⚠", "\N{EN DASH}", "v"]
    assert lines[1].endswith("dns: slow: wait")
    assert "a &lt; b" in report._repr_html_()
    assert report.stage("dns").remedy == "wait"
    with pytest.raises(KeyError, match="'turn' is not in this report"):
        report.stage("turn")
    failed = doctor.Report((*findings, doctor.Finding("tcp", "failed", 0.0, "no", "yes")))
    assert (failed.verdict, failed.exit_status) == ("failed", 1)
    assert doctor.Report(findings[:1]).exit_status == 0


def test_which_stages_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_KEY", KEY)

    def stages(**options: object) -> list[str]:
        return [finding.stage for finding in doctor.run(**options).stages]  # type: ignore[arg-type]

    assert stages(offline=True) == ["environment", "keys"]
    assert stages(only="sfu, keys") == ["keys", "sfu"]  # in their own order
    assert stages(only=["keys", "verdict"]) == ["keys", "verdict"]
    assert stages(only="keys,sfu", offline=True) == ["keys"]
    for unknown in ("nonsense", "keys,nonsense", "", []):
        with pytest.raises(ValueError, match="the stages are environment, keys, dns"):
            doctor.run(only=unknown)


def test_what_depends_on_a_failure_is_not_run_and_the_rest_is(shared_cloud: LocalCloud) -> None:
    options = {"sfu_app_id": shared_cloud.sfu_app_id, "sfu_secret": shared_cloud.sfu_secret}
    report = doctor.run(
        only="dns,tcp,tls,welcome,clock,permissions,roundtrip,reconnect,ice,stun,turn,peers,sfu,verdict",
        url=f"ws://127.0.0.1:{free_port()}",
        api_key=KEY,
        sfu_url=shared_cloud.http_url,
        **options,
    )
    assert report.stage("tcp").status == "failed"
    for stage in ("welcome", "clock", "permissions", "roundtrip", "reconnect", "peers"):
        assert report.stage(stage).what == "not run, because tcp failed"
        assert report.stage(stage).status == "skipped"
    assert report.stage("sfu").status == "ok"
    assert report.stage("verdict").what == "tcp failed"
    assert report.stage("verdict").remedy.startswith("begin with tcp")
    assert report.verdict == "failed"


@pytest.mark.slow
def test_it_takes_thirty_seconds_at_most() -> None:
    """Everything swallows: messaging, the SFU, TURN over UDP and TCP."""
    began = time.monotonic()
    with swallowing() as port:
        report = doctor.run(
            url=f"ws://127.0.0.1:{port}",
            api_key=KEY,
            sfu_app_id="app",
            sfu_secret="sfu_secret_0123456789abcdef",
            sfu_url=f"http://127.0.0.1:{port}",
            turn_app="mine",
            turn_api_key="a" * 20,
            turn_url=f"http://127.0.0.1:{port}",
            ice_servers=[
                {"urls": f"turn:127.0.0.1:{port}", "username": "u", "credential": "c" * 9}
            ],
        )
    assert report.verdict == "failed"
    assert time.monotonic() - began < 32

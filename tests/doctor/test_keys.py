"""Test what is said of keys by their form, and of this machine."""

from __future__ import annotations

import pytest

from metered_sync import doctor

ID, SECRET = "sk_id_0123456789abcdef", "sk_secret_0123456789abcdef0123"
KEY, SFU = "pk_live_0123456789abcdef", "sfu_secret_0123456789abcdef"


def examine(monkeypatch: pytest.MonkeyPatch, **variables: str) -> doctor.Finding:
    for name, value in variables.items():
        monkeypatch.setenv(f"METERED_{name}", value)
    report = doctor.run(only="keys")
    text = str(report) + report.to_json() + report._repr_html_()
    for value in (SECRET, KEY, SFU):
        assert value not in text
    return report.stage("keys")


@pytest.mark.parametrize(
    ("variables", "what", "remedy"),
    [
        ({}, "no key", "set METERED_KEY, or METERED_KEY_ID and METERED_KEY_SECRET"),
        (
            {"KEY_ID": SECRET, "KEY_SECRET": ID},
            "METERED_KEY_ID (sk_id_…) and METERED_KEY_SECRET (sk_secret_…) are swapped",
            "exchange the two values",
        ),
        (
            {"KEY": SFU},
            "METERED_KEY is the secret of an SFU app",
            "METERED_SFU_SECRET; give METERED_KEY a publishable key (pk_live_…)",
        ),
        (
            {"KEY": "sk_live_0123456789abcdef"},
            "a secret key of the old form (sk_live_…)",
            "make a pair, sk_id_… and sk_secret_…, in the dashboard",
        ),
        (
            {"KEY_ID": ID, "KEY_SECRET": "sk_live_0123456789abcdef"},
            "METERED_KEY_SECRET is a secret key of the old form",
            "make a pair, sk_id_… and sk_secret_…, in the dashboard",
        ),
        (
            {"KEY": SECRET},
            "METERED_KEY is the secret of a secret key",
            "METERED_KEY_SECRET, on your server; give METERED_KEY a publishable key",
        ),
        ({"KEY": "nonsense"}, "is not a publishable key", "give METERED_KEY a publishable key"),
        ({"KEY": f"{KEY} "}, "contains a space", "copy it again from the dashboard, whole"),
        ({"KEY": f'"{KEY}"'}, "contains a quotation mark", "copy it again from the dashboard"),
        ({"KEY_ID": ID}, "METERED_KEY_SECRET is not", "set METERED_KEY_SECRET, too"),
        ({"KEY_SECRET": SECRET}, "METERED_KEY_ID is not", "set METERED_KEY_ID, too"),
        ({"SFU_SECRET": SFU}, "METERED_SFU_APP_ID is not", "set METERED_SFU_APP_ID, too"),
        (
            {"SFU_APP_ID": SFU, "SFU_SECRET": SFU},
            "METERED_SFU_APP_ID is the secret of an SFU app",
            "give METERED_SFU_APP_ID the id of the SFU app",
        ),
        (
            {"SFU_APP_ID": "app", "SFU_SECRET": KEY},
            "METERED_SFU_SECRET is a publishable key",
            "give METERED_SFU_SECRET the secret of the SFU app",
        ),
        (
            {"TURN_APP": "mine", "TURN_API_KEY": KEY},
            "METERED_TURN_API_KEY is a publishable key",
            "give METERED_TURN_API_KEY the API key of the TURN app",
        ),
        (
            {"KEY": KEY, "URL": "https://host/path"},
            "METERED_URL must be an origin",
            "set METERED_URL to an origin, or unset it",
        ),
    ],
)
def test_keys_of_the_wrong_kind(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], what: str, remedy: str
) -> None:
    found = examine(monkeypatch, **variables)
    assert found.status == "failed"
    assert what in found.what
    assert remedy in found.remedy
    assert found.sentence == f"keys: {found.what}: {found.remedy}"


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine(monkeypatch, KEY="nonsense", SFU_APP_ID="app", KEY_ID=ID, KEY_SECRET=ID)
    for remedy in ("set METERED_SFU_SECRET", "give METERED_KEY a", "exchange the two values"):
        assert remedy in found.remedy


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        ({"KEY": KEY}, "METERED_KEY (a publishable key)"),
        (
            {"KEY_ID": ID, "KEY_SECRET": SECRET},
            "METERED_KEY_ID and METERED_KEY_SECRET (a secret key)",
        ),
        ({"SFU_APP_ID": "app", "SFU_SECRET": SFU}, "(an SFU app)"),
        ({"KEY": KEY, "TURN_APP": "mine", "TURN_API_KEY": "a" * 20}, "(a TURN app)"),
    ],
)
def test_keys_that_are_right(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], kinds: str
) -> None:
    found = examine(monkeypatch, **variables)
    assert (found.status, found.remedy) == ("ok", "")
    assert kinds in found.what


def test_a_wrong_key_is_not_sent_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_URL", "ws://127.0.0.1:9")
    monkeypatch.setenv("METERED_KEY", SECRET)
    report = doctor.run(only="welcome,permissions")
    assert [finding.status for finding in report.stages] == ["skipped", "skipped"]
    assert "because of the keys" in report.stages[0].what


def test_the_environment_names_versions_extras_and_proxies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:hush-hush@proxy.example:3128")
    found = doctor.run(only="environment").stage("environment")
    for part in ("CPython", "webrtc", "aiortc 1.", "libopus", "proxy.example:3128 (HTTPS_PROXY)"):
        assert part in found.what
    assert "hush" not in found.what


def test_a_variable_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://ann:hush-hush@proxy.example")
    found = doctor.run(only="environment").stage("environment")
    assert (found.status, found.remedy) == ("failed", "mend that variable, or unset it")
    assert "HTTPS_PROXY" in found.what
    assert "hush" not in found.what

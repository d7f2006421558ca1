"""Test the commands about TURN: servers, a new credential, the list."""

from __future__ import annotations

from pathlib import Path

import pytest

from metered_sync.local import LocalCloud
from tests.support.command_line import call


def test_servers_are_printed_as_lines_and_as_clients_take_them(dev: LocalCloud) -> None:
    done = call("turn", "servers", "--local")
    assert (done.status, done.err) == (0, "")
    assert [row[0].split(":")[0] for row in done.rows] == ["stun", "turn", "turn"]
    assert all(row[1] and row[2] for row in done.rows[1:])  # user name and credential
    done = call("turn", "servers", "--local", "--region", "europe", "--json")
    assert [set(server) for server in done.json] == [
        {"urls"}, *[{"urls", "username", "credential"}] * 2,
    ]  # fmt: skip


def test_a_credential_is_made_and_listed_without_its_password(dev: LocalCloud) -> None:
    made = call("turn", "create", "--local", "--label", "alice", "--expires-in", "60", "--json")
    assert made.status == 0
    (credential,) = made.json
    assert (credential["label"], credential["expires_in"]) == ("alice", 60)
    user, password, api_key = (credential[key] for key in ("username", "password", "api_key"))
    assert password
    assert api_key
    listed = call("turn", "list", "--local", "--label", "alice")
    assert listed.rows == [[user, "alice", "60", "no"]]
    both = call("turn", "list", "--local", "--json")
    assert user in [one["username"] for one in both.json]
    for secret in (password, api_key):
        assert secret not in listed.out + both.out
    (row,) = call("turn", "create", "--local").rows
    assert len(row) == 5
    assert all(row[:3])


def test_what_is_not_there_is_said_on_stderr(dev: LocalCloud) -> None:
    done = call("turn", "list", "--local", "--label", "nobody")
    assert (done.status, done.out, done.err) == (0, "", "there are no credentials\n")


def test_a_missing_key_is_misuse_and_a_wrong_one_a_refusal(
    dev: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = call("turn", "servers")
    assert done.status == 2
    assert "METERED_TURN_APP" in done.err
    monkeypatch.setenv("METERED_TURN_APP", dev.turn_app)
    monkeypatch.setenv("METERED_TURN_API_KEY", "an-api-key-of-somebody-else")
    done = call("turn", "servers", "--url", dev.http_url)
    assert (done.status, done.out) == (1, "")
    assert "check that the key is one of the app" in done.err
    done = call("turn", "list", "--url", dev.http_url)  # which needs the other key
    assert done.status == 2
    assert "METERED_TURN_SECRET_KEY" in done.err
    file = tmp_path / "secret"
    file.write_text(dev.turn_secret_key)
    done = call("turn", "list", "--url", dev.http_url, "--turn-secret-file", str(file))
    assert done.status == 0

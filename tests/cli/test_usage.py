"""Test usage: the plan and what is used of it."""

from __future__ import annotations

from pathlib import Path

from metered_sync.local import LocalCloud
from tests.support.command_line import call


def test_usage_as_lines_and_as_json(dev: LocalCloud) -> None:
    (usage,) = call("usage", "--local", "--json").json
    assert usage["app_id"] == dev.sfu_app_id
    assert usage["plan"]["max_messages_per_period"] == 100_000
    rows = {
        row[0]: row[1:] for row in (line.split("\t") for line in call("usage", "--local").lines)
    }
    assert rows["app"] == [dev.sfu_app_id, ""]
    assert rows["messages"][1] == "100000"
    assert rows["period"][0].endswith("UTC to ?")


def test_a_wrong_secret_is_one_line(dev: LocalCloud, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk_secret_wrong_and_long\n")
    done = call("usage", "--local", "--key-secret-file", str(secret))
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "wrong_and_long" not in done.err

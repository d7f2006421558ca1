"""Test the lists of the SFU's sessions and tracks."""

from __future__ import annotations

import pytest

from metered_sync import SfuClient
from metered_sync.local import LocalCloud
from tests.support.command_line import call
from tests.support.sfu_commands import published


def test_sessions_and_tracks_are_listed(dev: LocalCloud) -> None:
    for what in ("sessions", "tracks"):
        done = call("sfu", what, "--local")
        assert (done.status, done.out) == (0, "")
        assert done.err.count("\n") == 1
    options = dev.sfu_options()
    with published(dev, "camera") as sfu, SfuClient(**options, metadata="a\x1b[2Jb"):
        rows = call("sfu", "sessions", "--local").rows
        assert rows[0] == [sfu.session_id, "connected", ""]
        assert rows[1][1:] == ["connected", "a\\u001b[2Jb"]  # nobody steers the terminal
        assert call("sfu", "sessions", "--local", "--json").json[0] == {
            "session": sfu.session_id, "state": "connected", "metadata": None,
        }  # fmt: skip
        all_tracks = call("sfu", "tracks", "--local")
        assert [row[0] for row in all_tracks.rows] == [sfu.session_id] * 2
        assert [row[2:] for row in all_tracks.rows] == [["video", "camera"], ["audio", "camera"]]
        assert sfu.session_id is not None
        assert call("sfu", "tracks", sfu.session_id, "--local").out == all_tracks.out
        (video, _) = call("sfu", "tracks", "--local", "--json").json
        assert (video["kind"], video["name"], video["subscribers"]) == ("video", "camera", 0)


def test_what_is_wrong_is_one_line(dev: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("sfu", "tracks", "nothing", "--local")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "session" in done.err
    done = call("sfu", "sessions")
    assert done.status == 2
    assert "METERED_SFU_APP_ID" in done.err
    secret = "sfu_secret_of_somebody_else_entirely"
    monkeypatch.setenv("METERED_SFU_SECRET", secret)
    done = call("sfu", "sessions", "--app-id", dev.sfu_app_id, "--url", dev.http_url)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert secret not in done.err
    assert call("sfu").status == 2
    assert call("sfu", "nonsense").status == 2

"""Read the statistics of publications and subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until


@pytest.fixture
def pair(cloud: LocalCloud) -> Iterator[tuple[SfuClient, SfuClient]]:
    options = cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver:
        yield sender, receiver


def test_both_ends_agree(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 30, duration=2) as pattern, ToneSource(frequency=440) as tone:
        picture, sound = receiver.subscribe(
            [sender.publish(pattern.video, name="v"), sender.publish(tone.audio, name="a")]
        )
        sound.frames().get(timeout=20)
        assert picture.read(timeout=20) is not None
        wait_until(lambda: sender.stats()["round_trip_time"] is not None, 30)
        pattern.wait(timeout=30)
        # All that was sent arrives; what was sent before the subscription did not.
        enough = pattern.frames_sent["video"] * 0.5
        wait_until(lambda: picture.stats()["frames_decoded"] >= enough, 30)
        sent = {p["name"]: p for p in sender.stats()["publications"]}
        got = {s["name"]: s for s in receiver.stats()["subscriptions"]}
        assert set(sent) == set(got) == {"v", "a"}
        for name, kind in (("v", "video"), ("a", "audio")):
            assert sent[name]["kind"] == got[name]["kind"] == kind
            assert 0.3 < got[name]["bytes_received"] / sent[name]["bytes_sent"] <= 1.1
            assert 0.3 < got[name]["packets_received"] / sent[name]["packets_sent"] <= 1.1
            assert got[name]["packets_lost"] == 0
            assert got[name]["restarts"] == 0
        # (A sender that comes late takes the newest picture, and leaves others out.)
        assert enough <= sent["v"]["frames_sent"] <= pattern.frames_sent["video"] + 1
        assert picture.stats() == receiver.stats()["subscriptions"][0] | {
            "bitrate": pytest.approx(picture.stats()["bitrate"], abs=1e6)
        }
        overall = sender.stats()
        assert overall["state"] == "connected"
        assert overall["session_id"] == sender.session_id
        assert 0 <= overall["round_trip_time"] < 5
        assert overall["paths"] == [{"local": "host", "remote": "host"}]
        assert sent["a"]["bitrate"] > 10_000
        assert got["a"]["bitrate"] > 10_000


def test_losses_are_counted(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        track = receiver.subscribe(sender.publish(tone.audio))
        track.frames().get(timeout=20)
        cloud.faults.lose_media(0.2)
        wait_until(lambda: track.stats()["packets_lost"] > 5, 30)
        wait_until(lambda: sender.stats()["publications"][0]["packets_lost"] > 0, 30)
        assert track.stats()["packets_lost"] < track.stats()["packets_received"]


def test_counts_go_on_through_recoveries(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        track = receiver.subscribe(sender.publish(tone.audio, name="a"))
        frames = track.frames()
        wait_until(lambda: track.frames_received > 50, 20)
        before = track.stats(), sender.stats()["publications"][0]
        cloud.faults.kill_sfu_session(str(sender.session_id))
        wait_until(lambda: track.restarts == 1, 20)
        received = track.frames_received
        wait_until(lambda: track.frames_received > received + 5, 20)
        frames.close()
        after = track.stats(), sender.stats()["publications"][0]
        for name in ("bytes_received", "packets_received", "frames_decoded"):
            assert after[0][name] > before[0][name]
        for name in ("bytes_sent", "packets_sent", "frames_sent"):
            assert after[1][name] > before[1][name]
        assert after[0]["packets_lost"] == 0
        assert sender.stats()["recoveries"] == 1
        assert receiver.stats()["recoveries"] == 0


def test_what_has_ended_is_not_listed(pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        published = sender.publish(tone.audio)
        track = receiver.subscribe(published)
        assert len(receiver.stats()["subscriptions"]) == 1
        receiver.unsubscribe(track)
        published.close()
        assert receiver.stats()["subscriptions"] == sender.stats()["publications"] == []

"""Wait for a track that somebody publishes, or will."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    MeteredTimeoutError,
    NotConnectedError,
    SfuClient,
    SfuNotFoundError,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until
from tests.support.deadlines import expired
from tests.support.scripted_sfu import ScriptedSfu


def test_a_track_that_is_there_and_one_that_comes(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as sender,
        SfuClient(**options) as receiver,
        ToneSource(frequency=440) as tone,
        PatternSource(160, 120, 15) as pattern,
    ):
        mic = sender.publish(tone.audio, name="mic")
        found = receiver.wait_for_track(timeout=20)
        assert (found.session_id, found.track_id, found.name, found.kind) == (
            mic.session_id,
            mic.track_id,
            "mic",
            "audio",
        )
        later: list[Any] = []
        timer = threading.Timer(
            0.5, lambda: later.append(sender.publish(pattern.video, name="camera"))
        )
        timer.start()
        found = receiver.wait_for_track(kind="video", timeout=20)
        timer.join()
        assert found.track_id == later[0].track_id
        assert receiver.subscribe(found).read(timeout=20) is not None
        assert receiver.wait_for_track(name="mic", timeout=20).track_id == mic.track_id
        assert receiver.wait_for_track(str(sender.session_id), name="camera", timeout=20)
        with pytest.raises(MeteredTimeoutError, match=r"wait_for_track\(name='no'\).*0\.4 s"):
            receiver.wait_for_track(name="no", timeout=0.4)
        with pytest.raises(MeteredTimeoutError):
            receiver.wait_for_track(name="mic", kind="video", timeout=0.4)


def test_the_newest_session_comes_first(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as old,
        SfuClient(**options) as receiver,
        SfuClient(**options) as new,
        ToneSource(frequency=440) as one,
        ToneSource(frequency=440) as two,
    ):
        new.publish(one.audio, name="mic")
        old.publish(two.audio, name="mic")
        found = receiver.wait_for_track(name="mic", timeout=20)
        assert found.session_id == new.session_id


def test_ones_own_tracks_come_last_and_only_by_name(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as other,
        SfuClient(**options) as client,
        ToneSource(frequency=440) as one,
        ToneSource(frequency=440) as two,
    ):
        own = client.publish(one.audio, name="mic")
        assert client.wait_for_track(name="mic", timeout=20).track_id == own.track_id
        assert client.wait_for_track(client.session_id, timeout=20).track_id == own.track_id
        with pytest.raises(MeteredTimeoutError):
            client.wait_for_track(kind="audio", timeout=0.4)
        theirs = other.publish(two.audio, name="mic")
        assert client.wait_for_track(name="mic", timeout=20).track_id == theirs.track_id
        assert client.wait_for_track(timeout=20).track_id == theirs.track_id


def test_at_most_20_requests_a_second(shared_cloud: LocalCloud) -> None:
    with ScriptedSfu(shared_cloud.http_url) as sfu:
        sessions = [{"sessionId": f"s{n}", "connectionState": "connected"} for n in range(9)]
        sessions.append({"sessionId": "gone", "connectionState": "closed"})
        times: list[float] = []

        def note(status: int, answer: Any) -> tuple[int, Any]:
            times.append(time.monotonic())
            return status, answer

        sfu.spoil["sessions"] = lambda *_: note(200, sessions)
        sfu.spoil["tracks"] = lambda *_: note(200, [])
        with SfuClient(**{**shared_cloud.sfu_options(), "url": sfu.url}) as client:
            threads = [threading.Thread(target=self_times_out, args=(client,)) for _ in range(3)]
            started = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(times) > 20
        # (not from each second's arrivals: a busy machine has some of them late)
        assert len(times) <= 20 * (max(times) - started) + 1
        assert "/gone/" not in str(sfu.seen)


def self_times_out(client: SfuClient) -> None:
    with pytest.raises(MeteredTimeoutError):
        client.wait_for_track(name="nobody's", timeout=2.5)


def test_waits_become_rarer(shared_cloud: LocalCloud) -> None:
    with ScriptedSfu(shared_cloud.http_url) as sfu:
        sfu.spoil["sessions"] = lambda *_: (200, [])
        options = {**shared_cloud.sfu_options(), "url": sfu.url}
        with SfuClient(**options) as client, pytest.raises(MeteredTimeoutError):
            client.wait_for_track(timeout=3)
        # Pauses of 0.1, 0.15, 0.225, … s: far from 60.
        assert 4 <= sfu.calls("sessions") <= 10


def test_a_wait_in_vain_says_what_is_there(cloud: LocalCloud) -> None:
    with (
        SfuClient(**cloud.sfu_options()) as publisher,
        SfuClient(**cloud.sfu_options()) as viewer,
        ToneSource() as tone,
    ):

        def in_vain(words: str, session_id: str | None = None, **wanted: Any) -> str:
            """Search for a track that there is not, until the whole list has been seen."""
            expiry = expired(
                lambda timeout: viewer.wait_for_track(session_id, **wanted, timeout=timeout),
                lambda error: str(error).endswith(words),
                first=0.5,
            )
            assert str(expiry).endswith(words)
            return str(expiry)

        in_vain("published are no others", name="camera")
        publisher.publish(tone, name="microphone")
        words = f"published are audio 'microphone' of session {publisher.session_id}"
        assert "name='" in in_vain(words, name="camera")
        assert "kind='" in in_vain(words, kind="video")
        in_vain(words, publisher.session_id, kind="video")


def test_what_ends_a_wait(cloud: LocalCloud) -> None:
    client = SfuClient(**cloud.sfu_options())
    with pytest.raises(NotConnectedError):
        client.wait_for_track(timeout=1)
    with client:
        with pytest.raises(SfuNotFoundError):
            client.wait_for_track("no-such-session", timeout=10)
        for bad in ({"kind": "smell"}, {"name": ""}, {"session_id": ""}, {"timeout": -1}):
            with pytest.raises(ValueError):
                client.wait_for_track(**bad)  # type: ignore[arg-type]
        outcome: list[BaseException] = []

        def wait() -> None:
            try:
                client.wait_for_track(name="never")
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        link: Any = client._link
        wait_until(lambda: link._scopes)
        client.close()
        thread.join(20)
        assert isinstance(outcome[0], ClosedError)


def test_a_wait_goes_on_through_a_recovery(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as receiver,
        SfuClient(**options) as sender,
        ToneSource(frequency=440) as tone,
    ):
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.append(receiver.wait_for_track(name="mic", timeout=30))
        )
        thread.start()
        cloud.faults.kill_sfu_session(str(receiver.session_id))
        wait_until(lambda: receiver.stats()["recoveries"] == 1, 20)
        mic = sender.publish(tone.audio, name="mic")
        thread.join(30)
        assert found[0].track_id == mic.track_id

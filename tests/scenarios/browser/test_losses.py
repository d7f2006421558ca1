"""A browser that goes, and sessions that are lost."""

from __future__ import annotations

import time

import pytest

from metered_sync import Republished, SfuClient, SfuNotFoundError
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.conftest import wait_until
from tests.scenarios.browser.conftest import Tab

pytestmark = pytest.mark.browser
PUBLISH = "pc.createDataChannel('idle'); await connect(); return publish(await camera(), name)"


def test_a_closed_tab_is_a_session_that_is_gone(tab: Tab, sfu: SfuClient) -> None:
    session = tab.run(PUBLISH, name="closed")["sessionId"]
    track = sfu.subscribe(sfu.wait_for_track(session, timeout=20))
    track.read(timeout=20)
    tab.close()
    closed = time.monotonic()
    wait_until(lambda: session not in {s.session_id for s in sfu.sessions()}, 30)
    assert time.monotonic() - closed < 15
    with pytest.raises(SfuNotFoundError):
        sfu.tracks(session)


def test_a_track_goes_on_when_the_browser_publishes_it_anew(
    tab: Tab, sfu: SfuClient, shared_cloud: LocalCloud
) -> None:
    first = tab.run(PUBLISH, name="desk, again")["sessionId"]
    track = sfu.subscribe(sfu.wait_for_track(first, timeout=20))
    with track.frames() as frames:
        frames.get(timeout=20)
        shared_cloud.faults.kill_sfu_session(first)
        second = tab.run("reset();" + PUBLISH, name="desk, again")["sessionId"]
        wait_until(lambda: track.restarts == 1, 20)
        seen = track.frames_received
        wait_until(lambda: track.frames_received >= seen + 10, 20)
        frames.get(timeout=20)
    assert first != second
    assert (track.stream_id, track.ended, track.restarts) == (second, False, 1)


def test_a_browser_finds_what_we_publish_anew_by_its_name(
    tab: Tab, sfu: SfuClient, shared_cloud: LocalCloud
) -> None:
    subscribe = "const [mid] = await subscribe([await find(name, 'video')]); return mid"
    with PatternSource(320, 240, 15) as pattern:
        camera = sfu.publish(pattern.video, name="door")
        first = camera.session_id
        mid = tab.run(
            "pc.createDataChannel('idle'); await connect();" + subscribe, name=camera.name
        )
        tab.run("return decoded(mid, 10)", mid=mid)
        with sfu.events(Republished) as events:
            shared_cloud.faults.kill_sfu_session(first)
            assert events.get(timeout=20).publication is camera
        assert camera.session_id != first
        mid = tab.run(subscribe, name=camera.name)
        tab.run("return decoded(mid, 10)", mid=mid)

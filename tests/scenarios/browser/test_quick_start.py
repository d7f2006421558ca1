from __future__ import annotations

from pathlib import Path

import pytest

from metered_sync.local import LocalCloud
from tests.scenarios.browser.conftest import Tabs

pytestmark = pytest.mark.browser
PAGE = Path(__file__).with_name("quickstart.html")


def test_the_documented_quick_start(tabs: Tabs, shared_cloud: LocalCloud) -> None:
    """Nothing in the page is changed but where it connects to."""
    page = PAGE.read_text()
    for placeholder, value in (
        ("https://global.sfu.metered.ca", shared_cloud.http_url),
        ("YOUR_SFU_APP_ID", shared_cloud.sfu_app_id),
        ("YOUR_SECRET", shared_cloud.sfu_secret),
    ):
        assert page.count(placeholder) == 1
        page = page.replace(placeholder, value)
    # Played are pictures of the camera's shape, one after the other.
    shape, frames = tabs.open(page).run("""
        const video = document.getElementById('echo');
        const frames = () => video.getVideoPlaybackQuality().totalVideoFrames;
        for (const end = performance.now() + 20000; frames() < 20;) {
          if (performance.now() > end) throw new Error(`only ${frames()} frames are played`);
          await new Promise(resolve => setTimeout(resolve, 50));
        }
        return [video.videoWidth / video.videoHeight, frames()];
    """)
    assert shape == pytest.approx(1920 / 1080, rel=0.02)
    assert frames >= 20

"""Share fixtures between the tests of the rules."""

from __future__ import annotations

import pytest


@pytest.fixture
def options(served_cloud: dict[str, str]) -> dict[str, str]:
    """What leads to an SFU of another process: what that holds is not ours."""
    return {
        "url": served_cloud["http_url"],
        "app_id": served_cloud["sfu_app_id"],
        "secret": served_cloud["sfu_secret"],
    }

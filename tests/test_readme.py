"""Every Python block of the README runs as it stands."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, run_script

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def environment(cloud: dict[str, str]) -> dict[str, str]:
    """What a reader has exported, here with a local cloud's values."""
    return {
        "METERED_URL": cloud["url"],
        "METERED_KEY": cloud["publishable_key"],
        "METERED_SFU_URL": cloud["http_url"],
        "METERED_SFU_APP_ID": cloud["sfu_app_id"],
        "METERED_SFU_SECRET": cloud["sfu_secret"],
    }


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int, served_cloud: dict[str, str]) -> None:
    done = run_script(BLOCKS[number], **environment(served_cloud))
    assert (done.returncode, done.stderr) == (0, "")
    if number == 0:
        assert "{'hello': 'world'}" in done.stdout


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6
    assert "make demo" in TEXT
    assert "make test" in TEXT


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_demo_is_written_without_asyncio() -> None:
    for path in (ROOT / "metered_sync" / "demo").glob("*.py"):
        assert not re.search(r"\basyncio\b|\basync\b|\bawait\b", path.read_text()), path

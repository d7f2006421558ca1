"""Run every Python block of the README and of docs/ as it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT, run_script
from tests.support.forked_scripts import RunScript, forked_scripts

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]
TEXT = PAGES[0].read_text()


def environment(cloud: dict[str, str]) -> dict[str, str]:
    """What a reader has exported, here with a local cloud's values."""
    return {
        "METERED_URL": cloud["url"],
        "METERED_KEY": cloud["publishable_key"],
        "METERED_KEY_ID": cloud["key_id"],
        "METERED_KEY_SECRET": cloud["key_secret"],
        "METERED_SFU_URL": cloud["http_url"],
        "METERED_SFU_APP_ID": cloud["sfu_app_id"],
        "METERED_SFU_SECRET": cloud["sfu_secret"],
    }


@pytest.fixture(scope="module")
def run_block(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunScript]:
    """A function that runs a block in a process of its own."""
    if not hasattr(os, "fork"):
        yield run_script
        return
    with forked_scripts(tmp_path_factory.mktemp("blocks")) as run:
        yield run


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str, served_cloud: dict[str, str], run_block: RunScript) -> None:
    done = run_block(block, **environment(served_cloud))
    # What a block shows on purpose, a callback's exception, is logged by the last resort.
    expected = "ZeroDivisionError" if "ZeroDivisionError" in block else ""
    assert done.returncode == 0, done.stderr
    if expected:
        assert expected in done.stderr
    else:
        assert done.stderr == ""
    assert bool(re.search(r"\bprint\(", block)) == bool(done.stdout)


def test_blocks_that_go_wrong_are_seen(run_block: RunScript) -> None:
    assert run_block("import atexit, sys; atexit.register(print, 1); sys.exit(3)").stdout == "1\n"
    assert run_block("import sys; sys.exit(3)").returncode == 3
    failed = run_block("import os; os.environ['X'].missing", X="1")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "AttributeError" in failed.stderr
    leaving = "import threading, time; threading.Timer(0.1, print, ['late']).start()"
    assert run_block(leaving).stdout == "late\n"


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 12
    assert "make demo" in TEXT
    assert "make test" in TEXT


def test_the_demo_is_written_without_asyncio() -> None:
    for path in (ROOT / "metered_sync" / "demo").glob("*.py"):
        assert not re.search(r"\basyncio\b|\basync\b|\bawait\b", path.read_text()), path

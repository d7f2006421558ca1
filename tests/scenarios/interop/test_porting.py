"""Run the programs of the page on porting with the published client, too: both say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import metered_sync
from tests.conftest import ROOT
from tests.scenarios.interop.conftest import python_command

PAGE = ROOT / "docs" / "coming-from-metered-realtime.md"
BLOCKS = re.findall(r"^```(py|python)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
PAIRS = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
SETUP = """
import aioice.ice
_find = aioice.ice.get_host_addresses  # (it finds none on a machine without a network)
aioice.ice.get_host_addresses = lambda *args, **kwargs: _find(*args, **kwargs) or ["127.0.0.1"]
"""


def run(python: str, program: str, cloud: dict[str, str]) -> str:
    done = subprocess.run(
        [python, "-c", program],
        env={**os.environ, "METERED_KEY": cloud["publishable_key"], "METERED_URL": cloud["url"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_before_and_after_say_the_same(number: int, served_cloud: dict[str, str]) -> None:
    (before_kind, before), (after_kind, after) = PAIRS[number]
    assert (before_kind, after_kind) == ("py", "python")
    assert "metered_realtime" in before
    assert not re.search(r"\basync\b|\bawait\b|asyncio", after)
    published, *_ = python_command()
    said = run(published, SETUP + before, served_cloud)
    assert said == run(sys.executable, after, served_cloud) != ""


@pytest.mark.slow
def test_every_public_name_is_there_or_on_the_page(served_cloud: dict[str, str]) -> None:
    published, *_ = python_command()
    names = run(published, "import metered_realtime as m; print(*m.__all__)", served_cloud).split()
    assert len(names) > 50
    missing = {name for name in names if not hasattr(metered_sync, name)}
    assert missing == {name for name in missing if re.search(rf"\b{name}\b", PAGE.read_text())}


def test_there_are_two_programs() -> None:
    assert len(PAIRS) == 2

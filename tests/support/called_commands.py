"""Call commands in this process, which is faster than starting one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metered_sync import SfuClient
from metered_sync.cli import main
from metered_sync.cli.dev_cloud import dev_cloud
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import need


@dataclass(frozen=True)
class Called:
    """What a command returned and wrote."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """The JSON objects that it wrote, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of its lines."""
        return [line.split("\t") for line in self.out.splitlines()]


def call(*arguments: str) -> Called:
    """Run a command to its end."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return Called(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def serving_dev_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """Serve what ``--local`` finds, with no key in the environment."""
    for name in [name for name in os.environ if name.startswith("METERED_")]:
        if name != "METERED_SYNC_REQUIRE_ALL":
            monkeypatch.delenv(name)
    with dev_cloud(limits=False) as cloud:
        monkeypatch.setenv("METERED_LOCAL_PORT", str(cloud.port))
        yield cloud


@contextlib.contextmanager
def published(cloud: LocalCloud, name: str) -> Iterator[SfuClient]:
    """Publish the pattern and a tone through a cloud's SFU; end the client with the block."""
    picture, tone = PatternSource(160, 120, 15), ToneSource()
    with picture, tone, SfuClient(**cloud.sfu_options()) as sfu:
        sfu.publish([picture, tone], name=name)
        yield sfu


def probe(path: Path) -> dict[str, dict[str, Any]]:
    """Return the streams of a media file by their kinds, as ffprobe decodes them."""
    command = [need("ffprobe", "ffmpeg"), "-v", "error", "-count_frames", "-of", "json"]
    done = subprocess.run(
        [*command, "-show_streams", "-show_format", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == "", done.stderr
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}

"""What tests of commands about media share: something that is published, and what a file has."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metered_sync import SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import need


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

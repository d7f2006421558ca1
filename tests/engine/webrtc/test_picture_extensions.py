"""Read what packets say of how a picture is to be shown."""

from __future__ import annotations

import pytest

from metered_sync.engine.webrtc.picture_extensions import Colours, read_colours, read_turns


@pytest.mark.parametrize("value", range(16))
def test_turns(value: int) -> None:
    """Two bits count; the others (camera, flip) are not heeded, as browsers do not."""
    assert read_turns(bytes([value])) == value % 4
    assert read_turns(b"") == 0


def test_colours() -> None:
    assert read_colours(bytes((1, 13, 1, 0x20))) == Colours(1, 2)  # a canvas of Chromium's
    assert read_colours(bytes((6, 6, 6, 0x15))) == Colours(6, 1)
    assert read_colours(bytes((9, 16, 9, 0x30)) + bytes(24)) == Colours(9, 0)
    assert read_colours(b"\1\1\1") is None

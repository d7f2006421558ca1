"""Hold the table of limits in docs/limits.md to the constants in the code."""

from __future__ import annotations

import re

from metered_sync.bridge.event_reader import CEILING
from metered_sync.bridge.reader import MAX_BYTES
from metered_sync.engine.rooms import (
    error_throttle,
    generation,
    member,
    roster,
    signal_queue,
    track_metadata,
)
from metered_sync.engine.webrtc import aiortc_private, data_channel, jitter
from metered_sync.wire import key_frames, limits, sdp, turn
from tests.conftest import ROOT

KIB, MIB = 1024, 1 << 20


def test_the_page_says_what_the_code_does() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page, re.MULTILINE))
    for row, values in {
        "a frame of the messaging server": (f"{limits.MAX_INBOUND_FRAME // MIB} MiB",),
        "members of a room": (f"{roster.MAX_MEMBERS}",),
        "messages from members that presence has not announced": (
            f"{roster.MAX_EARLY},",
            f"{roster.MAX_EARLY_BYTES // MIB} MiB",
        ),
        "messages that your program has not read": ("4,096 ", f"{MAX_BYTES // MIB} MiB"),
        "other events that your program has not read": (f"{CEILING * 4096:,}",),
        "errors in what a member sends": (f"{error_throttle.ERROR_BURST} at once",),
        "signals of a member that wait to be handled": (f"{signal_queue.MAX_SIGNALS:,}",),
        "a description (SDP) of a member": (f"{limits.MAX_FRAME // KIB} KiB",),
        "a description of an SFU, or one sent to the local SFU": (
            f"{sdp.MAX_DESCRIPTION // KIB} KiB",
        ),
        "ICE candidates for a description": (f"{generation.MAX_CANDIDATES},",),
        "ICE servers in a welcome": (
            f"{turn.MAX_ICE_SERVERS},",
            f"{turn.MAX_ICE_URL} characters",
        ),
        "tracks of a member whose metadata is kept": (f"{track_metadata.MAX_ANNOUNCED}",),
        "the size of a picture": (f"{key_frames.MAX_PIXELS:,} pixels",),
        "the data of a picture": (f"{jitter.MAX_PICTURE_BYTES // MIB} MiB",),
        "data channels that a member has open": (f"{member.MAX_CHANNELS}",),
        "parts of messages of data channels that wait for others": (
            f"{aiortc_private.MAX_PARTS} parts",
            f"{aiortc_private.MAX_STREAMS:,} channels",
        ),
        "messages of a data channel that wait to be read": (
            f"{data_channel.MAX_INBOX // MIB} MiB",
        ),
    }.items():
        for value in values:
            assert value in rows[row], f"{row}: {rows[row]}"

"""Hold the table of limits in docs/limits.md to the constants in the code."""

from __future__ import annotations

import inspect
import re

from aiortc import RTCSctpTransport

from metered_sync import _member_objects
from metered_sync.bridge.event_reader import CEILING
from metered_sync.bridge.reader import MAX_BYTES, Reader
from metered_sync.contrib import resources
from metered_sync.engine.messaging import inbound, roster_limits
from metered_sync.engine.rooms import (
    error_throttle,
    member,
    roster,
    signal_queue,
    track_metadata,
)
from metered_sync.engine.webrtc import data_channel, jitter, sdp_repair
from metered_sync.engine.webrtc.aiortc_private import routing, sctp
from metered_sync.local.console import journal, patches, server, state
from metered_sync.local.sfu import checks
from metered_sync.media.recording import inputs
from metered_sync.wire import data_channels, key_frames, limits, signals, turn
from metered_sync.wire.sdp import parser
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT

KIB, MIB = 1024, 1 << 20
WAITING = inspect.signature(Reader).parameters["maxsize"].default


def test_the_page_says_what_the_code_does() -> None:
    """Each row, and each number of it."""
    page = (ROOT / "docs" / "limits.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page, re.MULTILINE))
    in_descriptions = (
        f"{parser.MAX_LINES:,} lines",
        f"{sdp_repair.MAX_SECTIONS} media sections",
        f"{parser.MAX_SECTION_LINES} lines a section",
        f"{parser.MAX_FORMATS} formats a section",
    )
    said = {
        "a frame of the messaging server": (f"{limits.MAX_INBOUND_FRAME // MIB} MiB",),
        "errors of the server, and frames of it that cannot be read": (
            f"{inbound.LOGGED} lines in the log at once, then {inbound.LOGGED} a minute",
        ),
        "frames that come all at once": (f"{inbound.STEP * 1000:g} ms",),
        "members of a room": (f"{roster.MAX_MEMBERS}",),
        "metadata of a member (`peerMetadata`)": (
            f"{roster_limits.MAX_MEMBER_METADATA // KIB} KiB of JSON",
            f"{limits.MAX_PEER_METADATA // 1000} KB",
        ),
        "ids and metadata of all members of a room, or in the `roster()` of a channel": (
            f"{roster_limits.MAX_ROSTER // MIB} MiB",
            f"{roster_limits.ENTRY} bytes",
        ),
        "messages from members that presence has not announced": (
            f"{roster.MAX_EARLY},",
            f"{roster.MAX_EARLY_BYTES // MIB} MiB",
            f"{DEFAULT_TIMINGS.early:g} s",
        ),
        "messages that your program has not read": (
            f"{WAITING:,} in a reader",
            f"{MAX_BYTES // MIB} MiB",
        ),
        "other events that your program has not read": (f"{CEILING * WAITING:,}",),
        "errors in what a member sends": (
            f"{error_throttle.ERROR_BURST} at once",
            "one a second" if error_throttle.ERROR_INTERVAL == 1 else "?",
        ),
        "signals of a member that wait to be handled": (f"{signal_queue.MAX_SIGNALS:,}",),
        "a description (SDP) of a member": (f"{limits.MAX_FRAME // KIB} KiB", *in_descriptions),
        "a description of an SFU, or one sent to the local SFU": (
            f"{parser.MAX_DESCRIPTION // KIB} KiB",
            f"{parser.MAX_LINES:,} lines",
            f"{parser.MAX_SECTIONS} media sections ({checks._MAX_SESSION_SECTIONS} at",
        ),
        "ICE candidates for a description": (
            f"{sdp_repair.MAX_CANDIDATES},",
            f"{signals.MAX_CANDIDATE:,} characters",
            f"{sdp_repair.MAX_COPIED_CANDIDATES:,} in all",
        ),
        "ICE servers in a welcome": (
            f"{turn.MAX_ICE_SERVERS},",
            f"{turn.MAX_ICE_URLS} addresses",
            f"{turn.MAX_ICE_URL} characters",
        ),
        "a wait that a refused upgrade asks for (`Retry-After`)": (
            f"{DEFAULT_TIMINGS.going_away_max:g} s",
        ),
        "tracks of a member whose metadata is kept": (f"{track_metadata.MAX_ANNOUNCED}",),
        "the size of a picture": (f"{key_frames.MAX_PIXELS:,} pixels",),
        "the data of a picture": (
            f"{jitter.MAX_PICTURE_BYTES // MIB} MiB",
            f"{jitter.MAX_PICTURE_PACKETS:,} packets",
        ),
        "pictures and sound that wait for a decoder": (f"{jitter.MAX_DECODER_WAIT} s",),
        "units of a picture of H.264 that is recorded as it comes": (f"{inputs.MAX_UNITS}",),
        "streams (SSRCs) of a track, or of a whole connection": (
            f"{routing.MAX_STREAMS}, {routing.MAX_ROUTED:,}",
        ),
        "packets behind one that is missing": (f"{jitter.MAX_WAITING}",),
        "data channels that a member has open": (f"{member.MAX_CHANNELS}",),
        "a message of a data channel": (f"{data_channels.DEFAULT_CAP:,} with aiortc before 1.16",),
        "parts of messages of data channels that wait for others": (
            f"{sctp.MAX_PARTS} parts",
            f"{sctp.MAX_STREAMS:,} channels",
        ),
        "unread messages of channels that a member has closed": (
            f"{_member_objects.MAX_CLOSED} channels",
            f"{_member_objects.MAX_CLOSED_BYTES // MIB} MiB",
        ),
        "frames and calls in the log of a local cloud's [console](console.md)": (
            f"{journal.MAX_ENTRIES:,} rows",
            f"{journal.MAX_KEPT // MIB} MiB",
            f"{journal.MAX_TEXT:,} characters",
        ),
        "rows of it that an open page gets": (
            f"{patches.MAX_ROWS} ",
            "ten times a second" if server.INTERVAL == 0.1 else "?",
            f"{patches.MAX_SIZE // KIB} KiB",
        ),
        "peers, channels and sessions that the console lists": (
            f"{state.MAX_LISTED} of each",
            f"{state.MAX_INNER} names",
        ),
        "pages of the console that are open": (f"{server.MAX_PAGES}",),
        "messages that a page has not read of an [events view](django.md)": (
            f"{resources.STREAM_MESSAGES:,}",
            f"{resources.STREAM_BYTES // MIB} MiB",
        ),
        "messages of a data channel that wait to be read": (
            f"{WAITING:,}",
            f"{data_channel.MAX_INBOX // MIB} MiB",
        ),
    }
    assert rows.keys() - said.keys() == {"what a stranger sends"}
    for row, values in said.items():
        for value in values:
            assert value in rows[row], f"{row}: {rows[row]}"
    assert inbound.LOG_INTERVAL == 60


def test_messages_of_a_data_channel_are_as_long_as_aiortc_says() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    transport = RTCSctpTransport.__new__(RTCSctpTransport)
    assert f"{transport.getCapabilities().maxMessageSize:,}" in page

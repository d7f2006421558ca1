"""Look for the private names of aiortc and aioice, and use each, with the versions installed.

Run this folder with a new version first: it tells what is missing, and what is lost by that.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability
from metered_sync.engine.webrtc.aiortc_private.negotiation import (
    can_take_offer_back,
    keep_agreed,
    section_index,
    set_mid,
    set_offered,
    set_section_index,
    start_rest,
    take_offer_back,
)
from metered_sync.engine.webrtc.aiortc_private.sending import (
    discards,
    encoder_of,
    first_codec,
    name_stream,
)
from metered_sync.errors import NegotiationFailedError
from tests.conftest import ROOT
from tests.support.connections import run
from tests.support.peer_connections import Ends, negotiate

NEEDS = capabilities._needs()
NAMES = [(need, name) for need in NEEDS for name in need.names]


def test_this_version_has_everything(unprobed: None, caplog: pytest.LogCaptureFixture) -> None:
    found = capabilities.capabilities()
    assert caplog.text == ""
    assert found == frozenset(Capability)


def test_every_capability_is_looked_for() -> None:
    assert {need.capability for need in NEEDS} == {*Capability}


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(("need", "name"), NAMES, ids=lambda value: getattr(value, "method", value))
def test_what_is_missing_is_told_with_what_is_lost(
    need: Any, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = need._replace(names=("_renamed",))
    monkeypatch.setattr(
        capabilities, "_needs", lambda: tuple(renamed if n is need else n for n in NEEDS)
    )
    assert capabilities.capabilities() == frozenset(Capability) - {need.capability}
    capabilities.capabilities()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "_renamed" in record.getMessage()
    assert need.capability.value in record.getMessage()


@pytest.mark.usefixtures("nothing")
def test_all_that_is_missing_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert capabilities.capabilities() == frozenset()
    (record,) = caplog.records
    for capability in Capability:
        assert capability.value in record.getMessage()
    assert "\n" not in record.getMessage()


def test_private_names_are_in_one_folder() -> None:
    ours = {  # names that our own classes have as well
        "_connection", "_enabled", "_loop", "_queue", "get", "recv", "pack", "timeout",
        "target_bitrate", "turn_server", "get_host_addresses",
    }  # fmt: skip
    names = "|".join(sorted({name for _, name in NAMES} - ours))
    pattern = re.compile(rf"_RTC[A-Z]\w*__|(?:\.|\"|')(?:{names})\b")
    for path in sorted((ROOT / "metered_sync" / "engine").rglob("*.py")):
        if path.parent.name != "aiortc_private":
            assert not pattern.findall(path.read_text()), path


def test_everything_is_used() -> None:
    async def test() -> None:
        ends = Ends()
        await ends.connect()
        await ends.sees()
        assert encoder_of(ends.transceiver.sender) is not None
        assert ends.outlet.encoder is not None  # it takes what is encoded here
        assert ends.received.received.packets > 0
        assert ends.received.latency > 0
        assert not discards(ends.transceiver.sender)
        assert first_codec(ends.transceiver) == "vp8"
        (transport,) = ice.transports(ends.near)
        assert ice.path(transport) == {"local": "host", "remote": "host"}
        # Making an offer forgets what was agreed on, and it is restored.
        codecs = list(ends.transceiver._codecs)
        restore = keep_agreed(ends.near)
        offer = await ends.near.createOffer()
        restore()
        assert ends.transceiver._codecs == codecs
        # An offer is taken back, and one of the other side taken.
        index = section_index(ends.transceiver, 99)
        await ends.near.setLocalDescription(offer)
        assert take_offer_back(ends.near, ())
        assert ends.near.signalingState == "stable"
        assert section_index(ends.transceiver, 99) == index < 99
        await negotiate(ends.far, ends.near)
        await start_rest(ends.near)
        await ends.sees()
        await ends.close()

    run(test())


@pytest.mark.usefixtures("nothing")
def test_without_anything_media_flow_all_the_same() -> None:
    async def test() -> None:
        ends = Ends()
        name_stream(ends.transceiver.sender, "desk")
        set_section_index(ends.transceiver, None)
        set_mid(ends.transceiver, None)
        set_offered(ends.transceiver, "inactive")
        assert section_index(ends.transceiver, 7) == 7
        await ends.connect()
        await ends.sees()
        assert ends.outlet.encoder is None  # the sender encodes
        assert ends.received.received.packets == 0
        assert ends.received.latency == 0
        keep_agreed(ends.near)()
        assert not can_take_offer_back()
        assert not take_offer_back(ends.near, ())
        await start_rest(ends.near)
        with pytest.raises(NegotiationFailedError, match="cannot leave direct paths out"):
            ice.relay_only(ends.near, "peer")
        await ends.close()

    run(test())

"""Versions whose receivers take packets in another way are found out."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import RTCRtpReceiver

from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability
from tests.support.connections import run


@pytest.mark.usefixtures("unprobed")
def test_receivers_are_tried_with_packets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ignore(*_args: object) -> None:
        pass

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", ignore)
    assert capabilities.capabilities() == frozenset(Capability) - {Capability.INTAKES}
    (record,) = caplog.records
    assert "handing frames over" in record.getMessage()


@pytest.mark.usefixtures("unprobed")
def test_a_receiver_that_waits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", wait)

    async def test() -> None:
        assert Capability.INTAKES not in capabilities.capabilities()

    run(test())

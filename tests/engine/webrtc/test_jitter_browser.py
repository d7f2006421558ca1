"""Receive pictures straight from a browser, which sends lost packets again apart (RTX)."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.bridge.reader import Reader
from tests.support.bad_network import bad_network
from tests.support.connections import Side, run, until
from tests.support.peer_page import peer_page

pytestmark = pytest.mark.browser


def test_no_picture_is_lost_or_reordered_by_a_bad_network() -> None:
    async def test() -> None:
        side = Side("a", "b")
        with bad_network(fraction=0) as network:
            async with peer_page(side) as page:
                await page.run(
                    """
                    const [track] = await media({video: {width: 640, height: 480}});
                    const transceiver = pc.addTransceiver(
                      track, {direction: 'sendonly', streams: [new MediaStream([track])]});
                    const {codecs} = RTCRtpReceiver.getCapabilities('video');
                    transceiver.setCodecPreferences(
                      codecs.filter(codec => /H264|rtx/.test(codec.mimeType)));
                    """
                )
                await until(lambda: side.present, 20, "a track")
                reader: Reader[Any] = Reader("pictures", maxsize=5000)
                side.present[0].add(reader)
                await until(lambda: len(reader), 20, "a picture")
                network.fraction = 0.03
                await until(lambda: len(reader) > 80, 60, "eighty pictures")
                assert network.faults > 5
                network.check([reader.get_nowait().pts for _ in range(len(reader))])

    run(test(), 120)

"""The clock that aiortc goes by: another one than the time of day."""

from __future__ import annotations

import time

import time_machine
from aiortc import clock, rtcrtpreceiver, rtcsctptransport

from metered_sync.engine.webrtc import peer_connection


def test_aiortc_sees_neither_a_jump_nor_a_clock_that_stands_still() -> None:
    assert peer_connection  # by whose import it has the clock
    today = time.time()
    with time_machine.travel("2040-01-01", tick=False):
        for module in (rtcrtpreceiver, rtcsctptransport):
            before = module.time.time()
            assert abs(before - today) < 60
            assert module.time.time() > before
        before = clock.current_ntp_time()
        assert abs(clock.current_datetime().timestamp() - today) < 60
        assert clock.current_ntp_time() > before

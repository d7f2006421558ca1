"""Programs whose tests stop the clock, or set it: nothing here may wait for it."""

from __future__ import annotations

import pytest

from tests.conftest import run_script

PROGRAM = """
import faulthandler
import numpy, pytest
faulthandler.dump_traceback_later(40, exit=True)
{clock}

def main():
    from metered_sync import MeteredPeer, MeteredTimeoutError, SignallingClient, VideoSource
    from metered_sync.local import LocalCloud

    with LocalCloud(limits=False) as cloud:
        options = cloud.client_options()
        with SignallingClient(**options) as client, SignallingClient(**options) as other:
            inbox = other.subscribe("x")
            for number in range(190):  # more than may go at once: the rest is paced
                client.publish("x", number)
            assert [inbox.get(timeout=20).data for _ in range(190)] == list(range(190))
            for _ in range(3):
                with pytest.raises(MeteredTimeoutError):
                    inbox.get(timeout=0.05)
        with VideoSource(64, 48, fps=30) as source:
            for _ in range(5):
                source.write(numpy.zeros((48, 64, 3), numpy.uint8))
        peers = [MeteredPeer(**cloud.token_options(name)) for name in ("alice", "bob")]
        with peers[0].joined("room") as alice, peers[1].joined("room"):
            with alice.wait_for_peer(timeout=20).create_data_channel("c") as channel:
                for _ in range(3):
                    jump()
                    channel.send("ping", timeout=10)
    print("done")

"""

FREEZEGUN = (
    "from freezegun import freeze_time",
    "jump = lambda: frozen.tick(3600)\nwith freeze_time('2030-01-01') as frozen: main()",
)
TIME_MACHINE = (
    "import time_machine",
    "jump = lambda: traveller.shift(3600)\n"
    "with time_machine.travel('2030-01-01', tick=False) as traveller: main()",
)


@pytest.mark.parametrize(
    ("clock", "loop"),
    [(FREEZEGUN, "asyncio"), (TIME_MACHINE, "uvloop")],
    ids=["freezegun", "time-machine"],
)
def test_a_clock_that_stands_still_or_jumps(clock: tuple[str, str], loop: str) -> None:
    start, run = clock
    done = run_script(PROGRAM.format(clock=start) + run, METERED_SYNC_LOOP=loop, timeout=60)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr

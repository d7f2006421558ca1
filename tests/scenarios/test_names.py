"""Host names that nobody answers for: a name server that is silent, in a network of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, need

START = """
import faulthandler, socket, time
faulthandler.dump_traceback_later(40, exit=True)
name_server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name_server.bind(("127.0.0.1", 53))
from metered_sync import *
from metered_sync.local import LocalCloud
"""

DIALLING = """
key = dict(url="https://hanging.example", key_id="k" * 12, secret="s" * 40)
client = SignallingClient(url="wss://hanging.example", api_key="pk_live_0123456789abcdef0123")
for call in (client.connect, lambda timeout: ControlPlane(**key).publish("x", 1, timeout=timeout)):
    began = time.monotonic()
    try:
        call(timeout=1)
    except MeteredTimeoutError:
        print("in time", time.monotonic() - began < 8)
name_server.settimeout(0)
assert b"hanging" in name_server.recv(500)
with LocalCloud() as cloud, SignallingClient(**cloud.client_options()) as client:
    client.publish("x", 1)  # others go on
print(time.monotonic())
"""

GATHERING = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from metered_sync.bridge import engines
from metered_sync.testing import PatternSource, ToneSource
def spare_threads():  # with few, few names that hang would do
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))

engines.current().post(spare_threads)
def peer(name, **options):
    return MeteredPeer(**cloud.token_options(name), **options)

hanging = dict(ice_servers=[
    {"urls": "stun:hanging.example:3478"},
    {"urls": "turn:hanging.example:3478", "username": "u", "credential": "c"},
])
tone, source = ToneSource(440), PatternSource(160, 120, fps=20)
with LocalCloud(limits=False) as cloud, tone, source:
    with peer("ann").joined("quiet") as ann, peer("bob").joined("quiet") as bob:
        ann.add_track(source.video)
        frames = bob.wait_for_peer(timeout=20).track("video", timeout=20).frames()
        frames.get(timeout=20)
        others = [peer(name, **hanging) for name in ("cat", "dan", "eve", "fay")]
        for other in others:
            other.add_track(tone.audio)
            other.join("busy")
        gap, last = 0.0, time.monotonic()
        end = last + 3
        while last < end:
            frames.get(timeout=20)
            now = time.monotonic()
            gap, last = max(gap, now - last), now
        name_server.settimeout(0)
        assert b"hanging" in name_server.recv(500)
        print("gap", gap < 3 or gap)  # (a lookup takes longer to give up)
        for other in others:
            other.close()
print(time.monotonic())
"""


def run(tmp_path: Path, source: str, loop: str) -> list[str]:
    """Run a program where no name is answered for; return the lines that it prints.

    The last line is the time at which the program came to its end: it must be gone soon after.
    """
    unshare, ip = need("unshare", "util-linux"), need("ip", "iproute2")
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    inner = f'{ip} link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$1" -c "$2"'
    namespaces = [unshare, "--net", "--mount", "--map-root-user", "sh", "-c", inner]
    done = subprocess.run(
        [*namespaces, str(resolver), sys.executable, START + source],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "METERED_SYNC_LOOP": loop},
        check=False,
    )
    if "not permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip("this machine does not let processes make namespaces")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, end = done.stdout.splitlines()
    assert time.monotonic() - float(end) < 5  # a lookup would hold it up for 8
    return lines


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_name_that_hangs_holds_up_neither_the_deadline_nor_the_exit(
    tmp_path: Path, loop: str
) -> None:
    assert run(tmp_path, DIALLING, loop) == ["in time True"] * 2


def test_ice_servers_whose_names_hang_hold_up_no_media(tmp_path: Path) -> None:
    assert run(tmp_path, GATHERING, "asyncio") == ["gap True"]

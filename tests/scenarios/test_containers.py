"""What docs/surroundings.md says of containers: two that share a network, and nothing beyond it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import json, subprocess, sys
from metered_sync import *
from metered_sync.testing import PatternSource
serve = [sys.executable, "-m", "metered_sync.cli", "serve", "--json", "--exit-with-stdin"]
with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
    told = json.loads(cloud.stdout.readline())
    options = dict(url=told["url"], api_key=told["publishable_key"], ice_servers=[])
    sfu = dict(url=told["http_url"], app_id=told["sfu_app_id"], secret=told["sfu_secret"])
    with PatternSource(160, 120, fps=10) as source:
        with MeteredPeer(**options) as one, MeteredPeer(**options) as two:
            one.add_track(source.video)
            one.join("containers")
            two.join("containers")
            track = two.wait_for_peer(timeout=20).track("video", timeout=20)
            assert track.read(timeout=20).shape == (120, 160, 3)
        with SfuClient(**sfu) as publisher, SfuClient(**sfu) as viewer:
            track = viewer.subscribe(publisher.publish(source.video))
            assert track.read(timeout=20).shape == (120, 160, 3)
    cloud.stdin.close()
    assert cloud.wait(10) == 0
print("done")
"""


def own_network(*command: str) -> list[str]:
    """Return a command to run another one in a network of its own, which has loopback only."""
    return ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="where processes have networks of their own")
def test_two_containers_that_share_a_network() -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip (Debian packages util-linux, iproute2)")
    if subprocess.run(own_network("true"), capture_output=True, check=False).returncode:
        pytest.skip("this user may make no network of its own")
    done = subprocess.run(
        own_network(sys.executable, "-c", SCRIPT),
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

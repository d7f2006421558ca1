"""Test what is said in networks of one's own: without a way out, and with UDP blocked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from metered_sync.doctor.surroundings import NO_NETWORK
from tests.conftest import ROOT, need

BLOCK_UDP = (
    "ip rule add pref 10 lookup local && ip rule del pref 0 && "
    "ip rule add pref 5 ipproto udp blackhole"
)
"""Lose all UDP, that of this machine with itself included (Linux 4.17)."""


def run(source: str, prepare: str = "true") -> list[str]:
    """Run a program in a network that has nothing but ``lo``; return the lines that it prints."""
    unshare, _ = need("unshare", "util-linux"), need("ip", "iproute2")
    inner = f'ip link set lo up && {prepare} && exec "$0" -c "$1"'
    done = subprocess.run(
        [unshare, "--net", "--map-root-user", "sh", "-c", inner, sys.executable, source],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")},
        check=False,
    )
    if "not permitted" in done.stderr or "denied" in done.stderr or "RTNETLINK" in done.stderr:
        pytest.skip(f"this machine does not let processes make such networks: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


ALONE = """
from metered_sync import doctor
key = "pk_live_0123456789abcdef"
for url in ("wss://rms.example", "wss://192.0.2.7"):
    report = doctor.run(only="environment,dns,tcp,tls", url=url, api_key=key)
    for finding in report.stages:
        print(finding.stage, finding.status, finding.remedy)
"""


def test_no_interface_but_the_loopback_one() -> None:
    lines = run(ALONE)
    named, numbered = lines[:4], lines[4:]
    assert named == [
        f"environment warning {NO_NETWORK}",
        f"dns failed {NO_NETWORK}",
        "tcp skipped ",
        "tls skipped ",
    ]
    assert numbered == [
        f"environment warning {NO_NETWORK}",
        "dns ok ",
        f"tcp failed {NO_NETWORK}",
        "tls skipped ",
    ]


WITHOUT_UDP = """
from metered_sync import doctor
from metered_sync.doctor import ice, media
from metered_sync.local import LocalCloud
ice.PATIENCE = ice.RELAYING = 1.0
media.CONNECTING = 3.0
servers = ["stun:127.0.0.1:3478", "turn:127.0.0.1:3478?transport=udp"]
with LocalCloud(ice_servers=servers) as cloud:
    report = doctor.run(only="welcome,stun,turn,sfu,media", local=cloud)
for finding in report.stages:
    print(finding.stage, finding.status, finding.remedy)
"""


@pytest.mark.slow
def test_udp_that_is_blocked() -> None:
    udp = "ask for outgoing UDP to 127.0.0.1 port 3478 in the firewall, or rely on TURN over TCP"
    welcome, stun, turn, sfu, media = run(WITHOUT_UDP, BLOCK_UDP)
    assert (welcome, sfu) == ("welcome ok ", "sfu ok ")
    assert stun.startswith(f"stun failed {udp}")
    assert turn.startswith(f"turn failed {udp}")
    assert media.startswith("media failed let UDP out of this network")

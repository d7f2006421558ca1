"""Publishing and receiving, next to the published async client, over ``ws://`` and ``wss://``.

The two take turns against the same server, each in a process of its own, so that what else
the machine does hits both. The async client (``metered-realtime``) gets a virtual environment
of its own, made on the first run. Ratios above 1 mean that we are faster; for the time beside a
busy thread, and for CPU, below 1. On a busy machine look at the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

HERE = Path(__file__).parent
PEER = HERE.parent / ".interop" / "benchmark"
PEER_VERSION = "metered-realtime==1.0.2"


def peer_python() -> str:
    """Return the interpreter of an environment with the async client; make it if need be."""
    python = PEER / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER_VERSION], check=True)
    return str(python)


@contextmanager
def server(certificate: str | None) -> Iterator[str]:
    """Run the server; yield its origin."""
    command = [sys.executable, str(HERE / "_pubsub_server.py")]
    with subprocess.Popen(
        command + ([certificate] if certificate else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"{'wss' if certificate else 'ws'}://localhost:{process.stdout.readline().strip()}"
        process.stdin.close()


def measure(python: str, script: str, url: str, scale: float, **env: str) -> dict[str, Any]:
    """Run one client's part."""
    done = subprocess.run(
        [python, str(HERE / script), url, str(scale)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, **env},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(scheme: str, rounds: int, scale: float) -> None:
    """Let both take turns, and print the medians and their ratios."""
    authority = trustme.CA()
    with (
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.tempfile() as certificate,
        authority.cert_pem.tempfile() as trusted,
        server(certificate if scheme == "wss" else None) as url,
    ):
        ours, peers = [], []
        for _ in range(rounds):
            peers.append(
                measure(peer_python(), "_pubsub_async.py", url, scale, SSL_CERT_FILE=trusted)
            )
            ours.append(
                measure(sys.executable, "_pubsub_ours.py", url, scale, SSL_CERT_FILE=trusted)
            )

    def median(results: list[dict[str, Any]], name: str) -> float:
        return statistics.median(
            statistics.median(r[name]) if isinstance(r[name], list) else r[name] for r in results
        )

    def mean(results: list[dict[str, Any]]) -> float:
        # (It has two humps: either the waiting thread gets in at once, or after 5 ms.)
        return statistics.mean(statistics.mean(r["busy"]) for r in results)

    def cpu_row(name: str) -> tuple[str, float, float, str, float, str]:
        a, b = median(peers, name), median(ours, name)
        return "... CPU a message", a * 1e6, b * 1e6, "µs", b / a, ""

    print(f"\n{scheme}://{'':<34}{'async client':>14}{'metered_sync':>14}{'ratio':>8}{'goal':>14}")
    single, peer_single = median(ours, "single"), median(peers, "single")
    wss = scheme == "wss"
    for name, a, b, unit, ratio, goal in (
        (
            "publish to ack, one at a time (p50)",
            peer_single * 1e6,
            single * 1e6,
            "µs",
            peer_single / single,
            "1.1; 1.3" if wss else "1.1; 1.6",
        ),
        cpu_row("single_cpu"),
        (
            "64 in flight",
            median(peers, "pipelined"),
            median(ours, "pipelined"),
            "/s",
            median(ours, "pipelined") / median(peers, "pipelined"),
            "2.0; 3.0",
        ),
        cpu_row("pipelined_cpu"),
        (
            "received by a blocking reader",
            median(peers, "received"),
            median(ours, "received"),
            "/s",
            median(ours, "received") / median(peers, "received"),
            "3.0; 5",
        ),
        cpu_row("received_cpu"),
        (
            "publish to ack beside a busy thread (p50)",
            median(peers, "busy") * 1e3,
            median(ours, "busy") * 1e3,
            "ms",
            median(ours, "busy") / median(peers, "busy"),
            "<= 2" if wss else "<= 1",
        ),
        (
            "... mean",
            mean(peers) * 1e3,
            mean(ours) * 1e3,
            "ms",
            mean(ours) / mean(peers),
            "",
        ),
    ):
        print(f"{name:<41}{a:>10.1f} {unit:<3}{b:>10.1f} {unit:<3}{ratio:>8.2f}{goal:>14}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each client (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="work in each turn (1)")
    parser.add_argument("--only", choices=["ws", "wss"], help="one of the two schemes")
    options = parser.parse_args()
    used = [name for name in ("uvloop", "msgspec") if _installed(name)]
    print(f"accelerators: {', '.join(used) or 'none'} (goals: without them; with them)")
    for scheme in [options.only] if options.only else ["ws", "wss"]:
        compare(scheme, options.rounds, options.scale)


def _installed(name: str) -> bool:
    if name == "uvloop" and os.environ.get("METERED_SYNC_LOOP") == "asyncio":
        return False
    try:
        __import__(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()

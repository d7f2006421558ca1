"""What the local cloud's console costs: without an open page, with one, and without a console.

Two clients of this process exchange 2,000 messages a second through a cloud in a process of its
own, whose CPU time is read from /proc (Linux). The page is a reader of its stream of patches, so
that no browser takes part. Rounds alternate, since the machine's pace changes.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

import requests
from _processes import cpu, local_cloud

from metered_sync import SignallingClient

RATE = 2000
SECONDS = 5.0
ROUNDS = 3
DATA = {"text": "x" * 200}
KINDS = ("no console", "no page", "a page", "a page with a filter")


@contextlib.contextmanager
def page(url: str, words: str) -> Iterator[list[int]]:
    """Read patches on a thread, as an open page does; yield how long each was."""
    sizes: list[int] = []
    events = url.replace("/console/", "/console/events")
    answer = requests.get(events, params={"words": words}, stream=True, timeout=30)
    answer.raise_for_status()

    def read() -> None:
        with contextlib.suppress(requests.RequestException, AttributeError):
            sizes.extend(len(line) for line in answer.iter_lines(chunk_size=None) if line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield sizes
    answer.close()
    reader.join(5)


def drive(facts: dict[str, str]) -> int:
    """Publish at the rate for a while; return how many messages."""
    options = {"api_key": facts["publishable_key"], "url": facts["url"], "rate_limit": None}
    with SignallingClient(**options) as sender, SignallingClient(**options) as receiver:
        inbox = receiver.subscribe("busy", maxsize=int(2 * RATE * SECONDS))
        start, sent = time.monotonic(), 0
        while (passed := time.monotonic() - start) < SECONDS:
            while sent < passed * RATE:
                sender.publish_nowait("busy", DATA)
                sent += 1
            time.sleep(0.01)
        sender.flush(timeout=30)
        for _ in range(sent):
            inbox.get(timeout=30)
        return sent


def measure(kind: str) -> tuple[float, str]:
    """Return the CPU of a cloud as a share of a core, and what the page got."""
    options = ("--no-console",) if kind == "no console" else ()
    with local_cloud(*options) as (pid, facts), contextlib.ExitStack() as stack:
        sizes: list[int] = []
        if kind.startswith("a page"):
            words = "nowhere to be found" if "filter" in kind else ""
            sizes = stack.enter_context(page(facts["console_url"], words))
        before, start = cpu(pid), time.monotonic()
        sent = drive(facts)
        seconds = time.monotonic() - start
        share = (cpu(pid) - before) / seconds
    rate = f"{sent / seconds:.0f} messages/s"
    if sizes:
        rate += f", {len(sizes) / seconds:.1f} patches/s of {statistics.mean(sizes) / 1000:.0f} kB"
    return share, rate


def main() -> None:
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind in KINDS:
            share, rate = measure(kind)
            shares[kind].append(share)
            print(f"{kind:>22}: {share:6.1%} of a core at {rate}", flush=True)
    medians = {kind: statistics.median(found) for kind, found in shares.items()}
    for kind in KINDS[1:]:
        more = medians[kind] - medians["no console"]
        ratio = medians[kind] / medians["no console"]
        print(f"{kind}: {more:+.1%} of a core, {ratio:.2f} of a cloud without a console")


if __name__ == "__main__":
    main()

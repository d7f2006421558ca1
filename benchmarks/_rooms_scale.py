"""Rooms of many: what a member costs in a mesh and through the SFU; see ``rooms.py``.

Every member sends 160x120 pictures, five a second (VP8). Ann, alone in her process, sends and
reads nothing; the others, together in another process, receive all tracks, and one in four of
them decodes; a viewer in a third one sends nothing and reads nothing, after it has joined several
times to see how long a first picture takes. The local cloud is a process of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _processes import answer, child, cpu, questions, ready

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from metered_sync import MeteredPeer, SfuMedia, mint_token  # noqa: E402
from metered_sync.local import LocalCloud, meter  # noqa: E402
from metered_sync.media.tracks.track import core_of  # noqa: E402
from metered_sync.testing import PatternSource  # noqa: E402
from tests.support.raw_client import raw  # noqa: E402

__all__ = ["draw", "forming", "measure", "show"]

ROOM = "bench"
WIDTH, HEIGHT, FPS = 160, 120, 5
DECODES = 4
"""One in so many members decodes what it receives."""
JOINS = 3
"""How often the viewer joins anew for its first picture; the median counts."""
OURS = 32
"""Members of this library in the largest room; the others speak signalling and no more."""
PATIENCE = 90.0


# --- the processes --------------------------------------------------------------------


def serve() -> None:
    meter.MAX_ATTEMPTS = 10_000  # all come from one address
    with LocalCloud(max_connections=10_000, max_messages=10**9) as cloud:
        names = ("url", "http_url", "key_id", "key_secret", "sfu_app_id", "sfu_secret")
        for _ in questions():
            answer({name: getattr(cloud, name) for name in names})


def member(cloud: dict[str, str], medium: str, name: str, subscribe: str) -> MeteredPeer:
    sfu = SfuMedia(app_id=cloud["sfu_app_id"], secret=cloud["sfu_secret"], url=cloud["http_url"])
    return MeteredPeer(
        url=cloud["url"],
        token_provider=mint_token(cloud["key_id"], cloud["key_secret"], peer_id=name),
        ice_servers=[],
        media=sfu if medium == "sfu" else "mesh",
        subscribe=subscribe,  # type: ignore[arg-type]
        max_video=24,
    )


def bytes_of(peer: MeteredPeer, medium: str) -> tuple[int, int]:
    """Return the bytes of media that a member has sent and received."""
    stats = [one.stats() for one in peer.remote_peers]
    senders = stats[:1] if medium == "sfu" else stats  # through the SFU it sends once
    sent = sum(track["bytes_sent"] for one in senders for track in one["outgoing"])
    return sent, sum(track["bytes_received"] for one in stats for track in one["incoming"])


def answer_rates(peer: MeteredPeer, medium: str) -> None:
    """Answer each question, a number of seconds, with what a member sends, receives and takes."""
    for seconds in questions():
        before, used, started = bytes_of(peer, medium), time.process_time(), time.monotonic()
        time.sleep(seconds)
        used, took = time.process_time() - used, time.monotonic() - started
        up, down = (
            (b - a) * 8e-3 / took for a, b in zip(before, bytes_of(peer, medium), strict=True)
        )
        answer({"uplink": up, "downlink": down, "cpu": used / took})


def ann(cloud: dict[str, str], medium: str) -> None:
    with (
        PatternSource(WIDTH, HEIGHT, FPS) as source,
        member(cloud, medium, "ann", "on-read") as one,
    ):
        one.add_track(source.video)
        one.join(ROOM)
        ready()
        answer_rates(one, medium)


def viewer(cloud: dict[str, str], medium: str) -> None:
    took = []
    for number in range(JOINS):
        with member(cloud, medium, f"viewer-{number}", "on-read") as one:
            started = time.monotonic()
            one.join(ROOM, timeout=PATIENCE)
            there = one.wait_for_peer("ann", timeout=PATIENCE)
            there.track("video", timeout=PATIENCE).read(timeout=PATIENCE)
            took.append(time.monotonic() - started)
    with member(cloud, medium, "viewer", "on-read") as one:
        one.join(ROOM, timeout=PATIENCE)
        one.wait_for_peer("ann", timeout=PATIENCE).track("video", timeout=PATIENCE)
        ready(statistics.median(took))
        answer_rates(one, medium)


def crowd(cloud: dict[str, str], medium: str, count: int) -> None:
    with ExitStack() as stack:
        peers = [
            stack.enter_context(member(cloud, medium, f"m{number}", "all"))
            for number in range(count)
        ]
        for one in peers:
            source = stack.enter_context(PatternSource(WIDTH, HEIGHT, FPS))
            one.add_track(source.video)
            one.join(ROOM, timeout=PATIENCE)
        tracks = [
            (number, one.wait_for_peer(name, timeout=PATIENCE).track("video", timeout=PATIENCE))
            for number, one in enumerate(peers)
            for name in ("ann", *(f"m{other}" for other in range(count) if other != number))
        ]
        decoded = [track for number, track in tracks if number % DECODES == 0]
        readers = [stack.enter_context(track.frames()) for track in decoded]
        for reader in readers:
            reader.get(timeout=PATIENCE)
        until = time.monotonic() + PATIENCE
        while not all(core_of(track).incoming.frames for _, track in tracks):
            if time.monotonic() > until:
                raise SystemExit("not every track has arrived")
            time.sleep(0.1)
        ready()
        for seconds in questions():
            before, used = frames(tracks), time.process_time()
            time.sleep(seconds)
            used, came = time.process_time() - used, frames(tracks) - before
            answer({"cpu": used / seconds / count, "rate": came / seconds / len(tracks)})


def frames(tracks: list[Any]) -> int:
    """Count the frames that came, decoded or not."""
    return sum(core_of(track).incoming.frames for _, track in tracks)


# --- measuring ------------------------------------------------------------------------


def measure(medium: str, members: int, seconds: float) -> dict[str, float]:
    """Return the figures of one room."""
    with (
        child(__file__, "serve") as (server, described),
        ExitStack() as stack,
    ):
        cloud = described("facts")
        _, ask_ann = stack.enter_context(child(__file__, "ann", cloud, medium))
        ask_ann("ready?")
        _, ask_crowd = stack.enter_context(child(__file__, "crowd", cloud, medium, members - 1))
        ask_crowd("ready?")
        _, ask_viewer = stack.enter_context(child(__file__, "viewer", cloud, medium))
        first = ask_viewer("ready?")
        used = cpu(server)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, seconds) for ask in (ask_ann, ask_crowd, ask_viewer)]
            anns, others, viewers = (one.result() for one in asked)
        return {
            "members": members,
            "uplink": anns["uplink"],
            "cpu": anns["cpu"],
            "receiving cpu": others["cpu"],
            "rate": others["rate"],
            "viewer downlink": viewers["downlink"],
            "viewer cpu": viewers["cpu"],
            "first picture": first,
            "cloud cpu": (cpu(server) - used) / seconds,
        }


def forming(members: int) -> float:
    """Return the seconds until each member of a room without media sees each other."""
    ours, theirs = min(OURS, members // 2), members - min(OURS, members // 2)

    class Cloud:
        """What tokens are made by."""

    with (
        child(__file__, "serve") as (_, described),
        ExitStack() as stack,
        ThreadPoolExecutor(16) as pool,
    ):
        facts = described("facts")
        cloud: Any = Cloud()
        vars(cloud).update(facts)
        peers = [
            stack.enter_context(member(facts, "sfu", f"ours-{number}", "on-read"))
            for number in range(ours)
        ]

        def come(number: int) -> Any:
            client = stack.enter_context(raw(cloud, f"raw-{number}"))
            client.send(type="subscribe", channel=ROOM, requestId="1")
            return client

        started = time.monotonic()
        joins = [pool.submit(one.join, ROOM, timeout=PATIENCE) for one in peers]
        clients = list(pool.map(come, range(theirs)))
        for join in joins:
            join.result()
        for client in clients:
            there: set[str] = set()
            while len(there) < members - 1:
                frame = client.receive()
                if frame["type"] == "presence":
                    there |= {one["peerId"] for one in frame["joined"]}
                    there.discard(client.welcome["peerId"])
        while any(len(one.remote_peers) < members - 1 for one in peers):
            if time.monotonic() - started > PATIENCE:
                raise SystemExit("the room has not formed")
            time.sleep(0.01)
        return time.monotonic() - started


# --- showing --------------------------------------------------------------------------

ROWS = {
    "uplink": "kbit/s that a publisher sends",
    "cpu": "of a core: a publisher that reads nothing",
    "receiving cpu": "of a core: a member that receives all, one in four decoding",
    "rate": "pictures a second that arrive of each track",
    "viewer downlink": "kbit/s to a viewer that reads nothing",
    "viewer cpu": "of a core: that viewer",
    "first picture": "s from join() to the first picture",
    "cloud cpu": "of a core: the local cloud",
}


def show(figures: dict[str, Any]) -> None:
    """Print the figures, and what the mesh takes for each of ours."""
    for name, what in ROWS.items():
        print(what)
        for medium in ("mesh", "sfu"):
            values = "  ".join(f"{one['members']}: {one[name]:.3f}" for one in figures[medium])
            print(f"  {medium:4} {values}")
    most = figures["mesh"][-1]
    same = next(one for one in figures["sfu"] if one["members"] == most["members"])
    print(
        f"with {most['members']} members a mesh takes {most['uplink'] / same['uplink']:.1f} times "
        f"the uplink and {most['cpu'] / same['cpu']:.1f} times the CPU of a publisher"
    )
    print(f"{figures['forming members']} members see each other after {figures['forming']:.1f} s")


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the figures over the number of members."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    plots = (
        ("uplink", 1, "a publisher's uplink (kbit/s)"),
        ("cpu", 100, "CPU of a publisher that\nreads nothing (% of a core)"),
        ("viewer downlink", 1, "downlink of a viewer that\nreads nothing (kbit/s)"),
        ("first picture", 1, "from join() to the first picture (s)"),
        ("receiving cpu", 100, "CPU of a member that\nreceives all (% of a core)"),
        ("cloud cpu", 100, "CPU of the local cloud (% of a core)"),
    )
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for axis, (name, factor, title) in zip(axes.flat, plots, strict=True):
        for medium, style in (("mesh", "o--"), ("sfu", "o-")):
            of = figures[medium]
            numbers = [one["members"] for one in of]
            axis.plot(numbers, [one[name] * factor for one in of], style, label=medium)
        axis.set_title(title, fontsize=10)
        axis.set(ylim=(0, None), xticks=[one["members"] for one in figures["sfu"]])
    for axis in axes[1]:
        axis.set_xlabel("members")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    roles: dict[str, Any] = {"serve": serve, "ann": ann, "viewer": viewer, "crowd": crowd}
    roles[sys.argv[1]](*json.loads(sys.argv[2]))

"""Choose STUN and TURN servers out of the service's lists."""

from __future__ import annotations

from metered_sync.engine.webrtc.ice import choose_servers
from metered_sync.events import IceServer

SERVERS = (
    IceServer(("stun:stun.example:80",)),
    IceServer(("turn:relay.example:80", "turn:relay.example:80?transport=tcp"), "user", "pass"),
    IceServer(("turns:relay.example:443?transport=tcp",), "user", "pass"),
    IceServer(("turn:other.example:3478",), "user", "pass"),
)


def urls(attempt: int, servers: tuple[IceServer, ...] = SERVERS) -> list[str]:
    return [server.urls[0] for server in choose_servers(servers, attempt)]


def test_one_stun_and_one_turn_server_others_with_each_attempt() -> None:
    chosen = [urls(attempt) for attempt in range(5)]
    assert {stun for stun, _ in chosen} == {"stun:stun.example:80"}
    assert [turn for _, turn in chosen] == [
        "turn:relay.example:80",
        "turns:relay.example:443?transport=tcp",
        "turn:relay.example:80?transport=tcp",
        "turn:other.example:3478",
        "turn:relay.example:80",
    ]


def test_credentials_go_with_the_turn_server_alone() -> None:
    stun, turn = choose_servers(SERVERS, 0)
    assert (stun.username, stun.credential) == (None, None)
    assert (turn.username, turn.credential) == ("user", "pass")


def test_what_cannot_be_used_is_left_out() -> None:
    servers = (
        IceServer(
            ("stun:x?transport=udp", "turn:", "http://x", "stuns:x", "turns:x?transport=udp")
        ),
        IceServer(("turn:good.example",)),
    )
    assert urls(0, servers) == ["turn:good.example"]
    assert urls(3, servers) == ["turn:good.example"]
    assert choose_servers((), 0) == ()

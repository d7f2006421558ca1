"""Drives the published async client for Python: commands in, answers and events out.

JSON lines on standard input and output; ``parties.py`` is the other end. Runs in the virtual
environment that has the client, without this library.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import threading
from typing import Any

import metered_realtime as published

clients: dict[int, Any] = {}
tokens: dict[int, asyncio.Queue[str]] = {}


def say(**fields: Any) -> None:
    # One write: the reader's lines must not be cut.
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def peers(entries: Any) -> list[dict[str, Any]]:
    return [{"peerId": entry.peer_id, "metadata": entry.metadata} for entry in entries]


EVENTS: dict[type, Any] = {
    published.Connected: lambda e: {
        "event": "connected",
        "peerId": e.peer_id,
        "isReconnect": e.is_reconnect,
        "expiresAt": e.expires_at,
        "serverTime": e.server_time,
        "maxMessageSize": e.max_message_size,
        "iceServers": None if e.ice_servers is None else len(e.ice_servers),
    },
    published.Disconnected: lambda e: {
        "event": "disconnected",
        "code": e.code,
        "reason": e.reason,
        "willReconnect": e.will_reconnect,
    },
    published.StateChange: lambda e: {"event": "state", "from": e.from_, "to": e.to},
    published.Message: lambda e: {
        "event": "message",
        "channel": e.channel,
        "from": e.sender_peer_id,
        "data": e.data,
        "metadata": e.sender_metadata,
    },
    published.Direct: lambda e: {
        "event": "direct",
        "from": e.sender_peer_id,
        "data": e.data,
        "metadata": e.sender_metadata,
    },
    published.Presence: lambda e: {
        "event": "presence",
        "channel": e.channel,
        "joined": peers(e.joined),
        "left": peers(e.left),
    },
    published.ServerError: lambda e: {"event": "error", "code": e.code},
    published.GoingAway: lambda e: {"event": "going_away", "retryAfterMs": e.retry_after_ms},
    published.TokenProviderError: lambda e: {
        "event": "token_error",
        "failures": e.consecutive_failures,
    },
}


def open_client(number: int, options: dict[str, Any]) -> None:
    reconnect: Any = options["reconnect"]
    if reconnect:
        reconnect = published.ReconnectOptions(
            initial_delay=reconnect["initial"],
            max_delay=reconnect["most"],
            jitter_ratio=0,
            max_attempts=reconnect["attempts"],
        )
    credential: dict[str, Any] = {"api_key": options["key"]}
    if options["key"] is None:
        tokens[number] = asyncio.Queue()

        async def provide() -> str:
            say(client=number, event="token")
            return await tokens[number].get()

        credential = {"token_provider": provide}
    kind: Any = published.SignallingClient
    if options.get("room"):
        from drive_python_room import Room  # (it takes a while)

        kind = functools.partial(Room, lambda **fields: say(client=number, **fields))
    client = kind(
        url=options["url"],
        reconnect=reconnect,
        inactivity_timeout=options["inactivity"],
        **credential,
    )
    clients[number] = client
    if options.get("room"):
        return
    for event, render in EVENTS.items():
        client.on(event, lambda e, render=render: say(client=number, **render(e)))


async def carry_out(command: dict[str, Any]) -> Any:
    number, verb, args = command["client"], command["do"], command["args"]
    if verb == "open":
        return open_client(number, *args)
    client = clients[number]
    if verb == "subscribe":
        channel, metadata = args
        options = published.SubscribeOptions(include_sender_metadata=metadata)
        return await client.subscribe(channel, options)
    if verb == "state":
        return client.state
    if verb == "burst":  # publish many times without waiting for each
        channel, count = args
        return await asyncio.gather(*(client.publish(channel, n) for n in range(count)))
    return await getattr(client, verb)(*args)


async def answer(command: dict[str, Any]) -> None:
    try:
        value = await carry_out(command)
    except Exception as error:
        code = getattr(error, "code", None) or getattr(error, "close_code", None)
        say(id=command["id"], error={"name": type(error).__name__, "code": code})
    else:
        say(id=command["id"], value=value if isinstance(value, str) else None)


async def main() -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, line)
        loop.call_soon_threadsafe(commands.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    running = set()  # the loop keeps no strong references to tasks
    while line := await commands.get():
        command = json.loads(line)
        if command["do"] == "token":
            tokens[command["client"]].put_nowait(command["args"][0])
            continue
        task = asyncio.create_task(answer(command))
        running.add(task)
        task.add_done_callback(running.discard)


asyncio.run(main())

"""The published clients as other parties: one process for each language, commanded from here."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

PATIENCE = 20.0
"""Seconds that a test waits for what must happen."""
P = TypeVar("P", bound="Party")
FAST = {"initial": 0.05, "most": 0.2, "attempts": 100}
"""Reconnect delays, in seconds, and how many."""


class PartyError(Exception):
    """A published client raised an error: its name there, and its code if it has one."""

    def __init__(self, name: str, code: int | str | None) -> None:
        super().__init__(f"{name} ({code})")
        self.name = name
        self.code = code


class Party:
    """One published client. Its methods wait, and raise :class:`PartyError`."""

    def __init__(self, driver: Driver, number: int, tokens: Callable[[], str] | None) -> None:
        self.language = driver.language
        self.peer_id = ""
        self._driver = driver
        self._number = number
        self._tokens = tokens
        self._events: dict[str, queue.Queue[dict[str, Any]]] = defaultdict(queue.Queue)

    def __enter__(self) -> Party:
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def connect(self) -> None:
        self._call("connect")

    def close(self) -> None:
        self._call("close")

    def subscribe(self, channel: str, metadata: bool = False) -> None:
        self._call("subscribe", channel, metadata)

    def unsubscribe(self, channel: str) -> None:
        self._call("unsubscribe", channel)

    def publish(self, channel: str, data: Any) -> None:
        self._call("publish", channel, data)

    def burst(self, channel: str, count: int) -> None:
        """Publish 0, 1, 2, …, all at once."""
        self._call("burst", channel, count)

    def send(self, peer_id: str, data: Any) -> None:
        self._call("send", peer_id, data)

    @property
    def state(self) -> str:
        return str(self._call("state"))

    def next(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of a kind, passing over those with other fields."""
        while True:
            try:
                found = self._events[event].get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(
                    f"the {self.language} client had no {event} {fields}"
                ) from None
            if fields.items() <= found.items():
                return found

    def had(self, event: str) -> bool:
        """Whether an event of a kind is there."""
        return not self._events[event].empty()

    def happened(self, event: dict[str, Any]) -> None:
        """Take in an event; on the driver's reading thread."""
        kind = event["event"]
        if kind == "token":
            assert self._tokens is not None
            self._driver.say(self._number, "token", self._tokens())
        elif kind == "connected":
            self.peer_id = event["peerId"]
        self._events[kind].put(event)

    def _call(self, verb: str, *args: Any) -> Any:
        return self._driver.call(self._number, verb, *args)


class Driver:
    """The process that runs the published clients of one language."""

    def __init__(self, language: str, command: Sequence[str]) -> None:
        self.language = language
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
        )
        self._lock = threading.Lock()  # guards writing to the process
        self._numbers = itertools.count(1)
        self._parties: dict[int, Party] = {}
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def party(
        self,
        *,
        url: str,
        api_key: str | None = None,
        token_provider: Callable[[], str] | None = None,
        inactivity: float = 60.0,
        reconnect: dict[str, float] | Literal[False] = FAST,
    ) -> Party:
        """Return a client; a ``with`` block connects it and closes it."""
        options = {"url": url, "key": api_key, "inactivity": inactivity, "reconnect": reconnect}
        return self.open(Party, token_provider, options)

    def open(
        self, kind: type[P], token_provider: Callable[[], str] | None, options: dict[str, Any]
    ) -> P:
        """Have the process make a client, and return what commands it."""
        number = next(self._numbers)
        party = kind(self, number, token_provider)
        self._parties[number] = party
        self.call(number, "open", options)
        return party

    def say(self, client: int, verb: str, *args: Any, number: int | None = None) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "client": client, "do": verb, "args": args})
        with self._lock:
            self._process.stdin.write(line + "\n")

    def call(self, client: int, verb: str, *args: Any) -> Any:
        number = next(self._numbers)
        answers = self._answers[number] = queue.Queue()
        self.say(client, verb, *args, number=number)
        try:
            answer = answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"the {self.language} client did not end its {verb}") from None
        finally:
            del self._answers[number]
        if "error" in answer:
            raise PartyError(answer["error"]["name"], answer["error"]["code"])
        return answer["value"]

    def kill(self) -> None:
        """End the process as a crash does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._thread.join()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fields = json.loads(line)
            if "event" in fields:
                self._parties[fields.pop("client")].happened(fields)
            else:
                answers = self._answers.get(fields["id"])
                if answers is not None:  # else nobody waits any more
                    answers.put(fields)

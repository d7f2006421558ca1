"""Rule 10: no secret leaves, by no repr, log, event, pickle or exception, chains included."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import socket
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metered_sync
from metered_sync import (
    AudioSource,
    ControlPlane,
    Event,
    IceServer,
    MediaStream,
    MeteredError,
    MeteredPeer,
    Recorder,
    SfuApi,
    SfuClient,
    SignallingClient,
    TurnApi,
    iter_frames,
    mint_token,
)
from metered_sync import errors as errors_module
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.far_end import Far
from tests.support.outage import outage
from tests.support.seen import frames_of

MARK = "HUSHHUSH"
"""Stands in every secret of these tests, and must stand in no output."""


def shown(thing: Any) -> str:
    """Return all that can be seen of an object without taking it apart on purpose."""
    parts = [repr(thing), str(thing), f"{thing}", f"{thing!r}"]
    if isinstance(thing, BaseException):
        parts.append("".join(traceback.format_exception(thing)))
        for inner in chain(thing):
            parts += [repr(inner), str(inner), repr(inner.args), repr(vars(inner))]
    return "\n".join(parts)


def chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        inner = todo.pop()
        if inner is not None and id(inner) not in seen:
            seen.add(id(inner))
            yield inner
            todo += [inner.__cause__, inner.__context__]


def test_connecting_talking_and_failing(log: io.StringIO) -> None:
    output: list[str] = []
    with LocalCloud() as cloud:
        cloud.publishable_key = f"pk_live_{MARK}"  # for repr's sake; the server keeps its own
        output.append(shown(cloud))
    with LocalCloud() as cloud:
        secret = cloud.key_secret
        options = cloud.token_options("a", metadata={"iceServers": [
            {"urls": "turn:x", "username": MARK, "credential": MARK}]})  # fmt: skip
        with SignallingClient(**options) as client:
            events = client.events(Event)
            client.on(Event, lambda event: output.append(shown(event)))
            token_seen = options["token_provider"]()
            inbox = client.subscribe("x")
            assert client.ice_servers is not None
            output += [shown(client), shown(inbox), shown(events), shown(client.ice_servers)]
            output += [shown(client._options), shown(client._link), shown(client._engine)]
            with outage(cloud, client):
                pass
            wait_until(lambda: client.state == "connected")
            output.append(shown(client))
        output += [shown(event) for event in events]
    for options, in_secret in (
        ({"api_key": f"pk_live_{MARK}"}, MARK),
        ({"token_provider": f"{MARK}.{MARK}.{MARK}"}, MARK),
        ({"token_provider": mint_token("sk_id_no", MARK * 8, peer_id="x")}, ""),
    ):
        with LocalCloud() as cloud:
            client = SignallingClient(url=cloud.url, **options)
            with pytest.raises(MeteredError) as caught:
                client.connect()
            output += [shown(caught.value), shown(client), in_secret and ""]
        with pytest.raises(MeteredError) as caught:
            client.connect()  # nobody there any more
        output.append(shown(caught.value))
    everything = log.getvalue() + "\n".join(output)
    assert "GET /v1" in everything  # the request line was logged ...
    assert MARK not in everything  # ... without what was in it
    assert secret not in everything
    assert token_seen.split(".")[2] not in everything
    assert "eyJ" not in everything  # no token at all


def test_a_provider_whose_error_names_its_secret(log: io.StringIO) -> None:
    def provide() -> str:
        raise RuntimeError(f"GET https://x/mint?secretKey={MARK} with Bearer {MARK} failed")

    with pytest.raises(MeteredError) as caught:
        SignallingClient(token_provider=provide, url="ws://127.0.0.1:9").connect()
    assert MARK not in str(caught.value)
    assert MARK not in log.getvalue()


def test_bad_arguments_do_not_repeat_secrets() -> None:
    for call in (
        lambda: SignallingClient(api_key=f"pk_live_{MARK}", url=f"wss://h/v1?key={MARK}"),
        lambda: SignallingClient(api_key=f"pk_live_{MARK}", url=f"wss://h/?token={MARK}"),
        lambda: SignallingClient(api_key=f"sk_secret_{MARK}"),
        lambda: SignallingClient(api_key=f"pk_live_{MARK}", token_provider=MARK),
        lambda: mint_token("sk_id_x", f"sk_secret_{MARK}", peer_id=""),
        lambda: mint_token("sk_id_x", f"sk_secret_{MARK}", peer_id="x", channels=[7]),  # type: ignore[list-item]
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert MARK not in shown(caught.value)


PUBLISHABLE, KEY_SECRET = f"pk_live_{MARK}", f"sk_secret_{MARK}"
SFU_SECRET, TOKEN = f"sfu_secret_{MARK}", f"eyJ{MARK}.{MARK}.{MARK}"


@pytest.mark.parametrize(
    ("make", "slot"),
    [
        *(
            (lambda make=make, key=key, slot=slot: make(**{slot: key}), where)
            for make in (SignallingClient, MeteredPeer)
            for slot, key, where in (
                ("api_key", KEY_SECRET, "ControlPlane"),
                ("api_key", SFU_SECRET, "SfuClient"),
                ("api_key", MARK, "pk_live_"),
                ("api_key", TOKEN, "token_provider"),
                ("token_provider", KEY_SECRET, "ControlPlane"),
                ("token_provider", PUBLISHABLE, "api_key"),
                ("token_provider", SFU_SECRET, "SfuClient"),
                ("token_provider", MARK, "three parts"),
            )
        ),
        *(
            (lambda make=make, key=key: make("an-app", key), where)
            for make in (lambda app, key: SfuClient(app_id=app, secret=key), SfuApi)
            for key, where in (
                (KEY_SECRET, "ControlPlane"),
                (PUBLISHABLE, "api_key"),
                (TOKEN, "token_provider"),
                (f"{MARK} ", "a space"),
            )
        ),
        (lambda: SfuClient(app_id=SFU_SECRET, secret=MARK), "secret="),
        (lambda: SfuApi(KEY_SECRET, MARK), "ControlPlane"),
        (lambda: ControlPlane("sk_id_x", SFU_SECRET), "SfuClient"),
        (lambda: ControlPlane(PUBLISHABLE, KEY_SECRET), "api_key"),
        (lambda: ControlPlane("sk_id_x", TOKEN), "token_provider"),
        (lambda: mint_token("sk_id_x", SFU_SECRET, peer_id="x"), "SfuClient"),
        (lambda: mint_token("sk_id_x", f'"{KEY_SECRET}"', peer_id="x"), "a quotation mark"),
        (lambda: TurnApi("app", api_key=KEY_SECRET), "ControlPlane"),
        (lambda: TurnApi("app", api_key=PUBLISHABLE), "SignallingClient"),
        (lambda: TurnApi("app", secret_key=SFU_SECRET), "SfuClient"),
        (lambda: TurnApi("app", secret_key=f"{MARK}\n"), "a line break"),
        (lambda: TurnApi("app", api_key=MARK, url="ftp://x"), "origin"),
        (lambda: ControlPlane("sk_id_x", KEY_SECRET, url="ftp://x"), "origin"),
        (lambda: SfuApi("app", MARK, "ftp://x"), "origin"),
        (lambda: SignallingClient(token_provider=TOKEN, url="ftp://x"), "origin"),
        (
            lambda: MeteredPeer(
                api_key="pk_live_x",
                ice_servers=[{"urls": "turn:", "username": MARK, "credential": MARK}],
            ),
            "ice_servers",
        ),
        (lambda: SfuClient(app_id="a", secret=MARK, ice_servers=[f"turn:u:{MARK}@h"]), "ice_serv"),
    ],
)
def test_a_secret_in_the_wrong_slot_stays_here(make: Any, slot: str) -> None:
    with pytest.raises(ValueError, match=slot) as caught:
        make()
    assert MARK not in frames_of(caught.value)


@pytest.mark.parametrize("given", [MARK.encode(), [MARK], {"token": MARK}])
def test_a_secret_that_is_no_token_provider_stays_here(given: Any) -> None:
    for make in (
        lambda: SignallingClient(token_provider=given),
        lambda: MeteredPeer(token_provider=given),
        lambda: SfuClient(url="https://gate.example", token_provider=given),
    ):
        with pytest.raises(TypeError, match="token_provider must be a callable") as caught:
            make()
        assert MARK not in frames_of(caught.value)


def test_http_failures(log: io.StringIO) -> None:
    import asyncio

    from metered_sync.bridge.deadline import Deadline
    from metered_sync.engine.http import Http, HttpError

    # A server that answers nonsense which repeats the secret, and one that is not there.
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                body = f"you sent Bearer {MARK}, secretKey is ?secretKey={MARK}".encode()
                connection.sendall(
                    b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )

        thread = threading.Thread(target=answer)
        thread.start()
        http = Http(f"http://127.0.0.1:{server.getsockname()[1]}", MARK)
        reply = asyncio.run(http.fetch("POST", "/x", json={}, deadline=Deadline(5)))
        thread.join(20)
    assert reply.status == 500
    with pytest.raises(HttpError) as caught:
        asyncio.run(http.fetch("POST", "/x", json={}, deadline=Deadline(5)))
    output = shown(reply) + shown(http) + shown(caught.value) + log.getvalue()
    http.close()
    assert MARK not in output


def test_every_error_can_be_pickled_copied_and_shown() -> None:
    classes = [
        kind
        for _, kind in inspect.getmembers(errors_module, inspect.isclass)
        if issubclass(kind, MeteredError)
    ]
    assert len(classes) > 15
    extra = {
        "close_code": 4001, "close_reason": "r", "code": "c", "request_id": "r", "timeout": 1.0,
        "sent": True, "reason": "r", "size": 1, "cap": 2, "status": 404, "endpoint": "GET /",
        "body": {"a": 1}, "stage": "ICE", "queued": 1, "method": "join", "current_state": "idle",
    }  # fmt: skip
    for kind in classes:
        own = kind.__init__ is not Exception.__init__
        wanted = inspect.signature(kind.__init__).parameters if own else {}
        options = {name: value for name, value in extra.items() if name in wanted}
        error = kind("the message", **options)
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(twin) is kind
            assert str(twin) == "the message"
            assert vars(twin) == vars(error)
        assert MeteredError in kind.__mro__


def test_what_belongs_to_a_process_is_not_pickled_or_copied(
    shared_cloud: LocalCloud, tmp_path: Path
) -> None:
    with (
        SignallingClient(**shared_cloud.client_options()) as client,
        AudioSource() as sound,
        Far().track.on_frame(print) as callback,
    ):
        for one in (
            SignallingClient(api_key=f"pk_live_{MARK}"),
            MeteredPeer(api_key=f"pk_live_{MARK}"),
            SfuClient(app_id="app", secret=MARK),
            SfuApi("app", MARK),
            ControlPlane("sk_id_x", f"sk_secret_{MARK}"),
            TurnApi("app", api_key=MARK),
            LocalCloud(turn_secret=MARK),
            Recorder(tmp_path / "a.wav"),
            Far().track,
            Far().track.frames(),
            Far().track.capture(),
            Far("audio").track.pcm(),
            callback,
            iter_frames(Far().track),
            MediaStream(),
            shared_cloud.faults,
            client.subscribe("x"),
            client.events(),
            client.publish_nowait("x", 1),
            sound,
        ):
            for call in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(
                    TypeError, match=r"cannot be pickled or copied: .* new"
                ) as caught:
                    call(one)
                assert type(one).__name__ in str(caught.value)
                assert MARK not in shown(caught.value)


def test_credentials_in_events_are_not_shown() -> None:
    server = IceServer(("turn:x",), MARK, MARK)
    assert MARK not in shown(server)
    assert server.credential == MARK  # to be used, not to be seen


def test_every_public_name_is_documented() -> None:
    for name in dir(metered_sync):
        thing = getattr(metered_sync, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name

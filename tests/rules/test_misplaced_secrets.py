"""Rule 10 where a user mixes arguments up: no error quotes a key that stands in the wrong place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from metered_sync import (
    ControlPlane,
    IceServer,
    MediaStream,
    MeteredPeer,
    Recorder,
    SfuApi,
    SfuClient,
    SfuGate,
    SfuMedia,
    SignallingClient,
    TurnApi,
    VideoSource,
    from_camera,
    from_file,
    from_rtsp,
    iter_frames,
    mint_token,
)
from metered_sync.errors import MediaNotFoundError, MeteredError, SfuError
from metered_sync.local import LocalCloud
from tests.support.seen import frames_of

MARK = "HUSHHUSH"
"""Stands in every secret of these tests, and must stand in no output."""
SECRETS = (
    f"pk_live_{MARK * 4}",
    f"sk_secret_{MARK * 4}",
    f"sfu_secret_{MARK * 4}",
    f"eyJ{MARK}.{MARK}.{MARK}",
    f"wss://user:{MARK * 4}@host",
    f"wss://host/?token={MARK * 4}",
    f"turn:user:{MARK * 4}@host",
    [f"sk_secret_{MARK}"],
    {"token": f"eyJ{MARK}.{MARK}.{MARK}"},
    f"sk_secret_{MARK}".encode(),
)
NOWHERE = "http://127.0.0.1:9"
MAKERS: dict[Callable[..., Any], dict[str, Any]] = {
    SignallingClient: {"api_key": "pk_live_x", "url": "ws://127.0.0.1:9"},
    MeteredPeer: {"api_key": "pk_live_x", "url": "ws://127.0.0.1:9"},
    SfuClient: {"app_id": "a", "secret": "b", "url": NOWHERE},
    SfuApi: {"app_id": "a", "secret": "b", "url": NOWHERE},
    SfuMedia: {"app_id": "a", "secret": "b", "url": NOWHERE},
    SfuGate: {"app_id": "a", "secret": "b", "url": NOWHERE, "keys": {"sk_id_x": "sk_secret_x"}},
    ControlPlane: {"key_id": "sk_id_x", "secret": "sk_secret_x", "url": NOWHERE},
    TurnApi: {"app": "app", "api_key": "x", "url": NOWHERE},
    mint_token: {"key_id": "sk_id_x", "secret": "sk_secret_" + "x" * 30, "peer_id": "p"},
    LocalCloud: {},
    MediaStream: {},
    Recorder: {"path": "x.wav"},
    VideoSource: {"width": 64, "height": 48},
    from_camera: {},
    from_file: {},
    from_rtsp: {"url": "http://x"},
    iter_frames: {},
}
"""What makes something, and the arguments with which it could."""


def quoted(error: BaseException) -> str:
    """Return what an error and its causes say of themselves."""
    parts: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        parts += [repr(chain), str(chain), repr(vars(chain))]
        chain = chain.__cause__ or chain.__context__
    return "\n".join(parts)


def misuses(function: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Yield arguments for a function: each in turn is each of the secrets."""
    given = {
        one.name: one
        for one in inspect.signature(function).parameters.values()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    needed = {name: "x" for name, one in given.items() if one.default is one.empty}
    if "timeout" in given:
        needed["timeout"] = 0.0
    for name in given:
        for secret in SECRETS:
            yield {**needed, name: secret}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_cannot_be_made(make: Callable[..., Any]) -> None:
    told: list[str] = []
    for arguments in misuses(make):
        (name,) = [n for n, value in arguments.items() if value in SECRETS]
        try:
            made = make(**{**MAKERS[make], name: arguments[name]})
        except (TypeError, ValueError, MeteredError, OSError) as error:
            told.append(f"{name}: {quoted(error)}")
        else:
            if hasattr(made, "close"):
                made.close()
    assert told
    assert not [text for text in told if MARK in text]


@pytest.mark.parametrize(
    "make",
    [SignallingClient, MeteredPeer, SfuClient, SfuApi, ControlPlane, TurnApi],
    ids=lambda make: make.__name__,
)
def test_calls(make: Callable[..., Any]) -> None:
    told: list[str] = []
    with closing(make(**MAKERS[make])) as one:
        for name, method in inspect.getmembers(one, inspect.ismethod):
            if name.startswith("_") or name in ("close", "connect", "leave", "forward"):
                continue
            for arguments in misuses(method):
                try:
                    method(**arguments)
                except (TypeError, ValueError, MeteredError, OSError) as error:
                    told.append(f"{name}: {quoted(error)}")
    assert len(told) > 50
    assert not [text for text in told if MARK in text]


@pytest.mark.parametrize(
    "url", [MARK, f"turn:user:{MARK}@h", f"wss://h/{MARK}", f"https://h?{MARK}", f"//h/{MARK}"]
)
def test_an_address_is_shown_as_far_as_its_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (SignallingClient, SfuClient, SfuApi, SfuGate, ControlPlane, TurnApi):
        with pytest.raises(ValueError, match="url must be an origin") as caught:
            make(**{**MAKERS[make], "url": url})
        assert MARK not in frames_of(caught.value)
    with pytest.raises(ValueError, match="url must be") as caught:
        SfuClient(url=url, token_provider=lambda: "a.b.c")
    assert MARK not in frames_of(caught.value)
    monkeypatch.setenv("METERED_URL", url)
    with pytest.raises(ValueError, match="METERED_URL must be an origin") as caught:
        SignallingClient(api_key="pk_live_x")
    assert MARK not in frames_of(caught.value)


def test_a_camera_s_password_stays_here_where_it_is_opened_as_something_else() -> None:
    camera = f"rtsp://user:{MARK}@camera/live?pw={MARK}"
    for call in (from_file, from_camera):
        with pytest.raises((ValueError, MeteredError)) as caught:
            call(camera)
        assert f"user:{MARK}" not in frames_of(caught.value)
    with pytest.raises(ValueError, match="from_rtsp"):
        from_camera(camera)


def test_errors_cut_what_they_are_given() -> None:
    error = SfuError(f"{SECRETS[1]} is unknown", status=404, endpoint=f"GET /{SECRETS[0]}")
    assert str(error) == "sk_secret_… is unknown"
    assert error.endpoint == "GET /pk_live_…"
    assert MARK not in repr(MediaNotFoundError(f"there is no file {SECRETS[4]!r}"))


def test_the_address_of_a_turn_server_is_shown_without_a_user() -> None:
    server = IceServer(f"turn:user:{MARK}@host:3478", "u", "c")
    assert MARK not in repr(server)
    assert "host:3478" in repr(server)

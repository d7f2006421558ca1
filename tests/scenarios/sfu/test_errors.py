"""Meet a bad SFU at each stage: a clear error; the session is usable or closed, never stuck."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    MeteredError,
    MeteredTimeoutError,
    NegotiationFailedError,
    SfuAuthError,
    SfuClient,
    SfuConflictError,
    SfuError,
    SfuNotFoundError,
    VideoSource,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource
from tests.conftest import wait_until
from tests.support.deadlines import expired
from tests.support.scripted_sfu import ScriptedSfu

Spoil = Callable[[int, Any], tuple[int, Any]]


@pytest.fixture
def sfu(shared_cloud: LocalCloud) -> Iterator[ScriptedSfu]:
    with ScriptedSfu(shared_cloud.http_url) as sfu:
        yield sfu


@pytest.fixture
def options(shared_cloud: LocalCloud, sfu: ScriptedSfu) -> dict[str, Any]:
    return {**shared_cloud.sfu_options(), "url": sfu.url}


def sdp(edit: Callable[[str], str]) -> Spoil:
    """Spoil the description of an answer."""

    def spoil(status: int, body: Any) -> tuple[int, Any]:
        if isinstance(body, dict) and "sessionDescription" in body:
            body["sessionDescription"]["sdp"] = edit(body["sessionDescription"]["sdp"])
        return status, body

    return spoil


def without(field: str) -> Spoil:
    """Leave a field out of an answer."""
    return lambda status, body: (status, {k: v for k, v in body.items() if k != field})


def answered(status: int, body: Any) -> Spoil:
    """Answer something else, though the SFU has done it."""
    return lambda *_: (status, body)


# What is wrong with an answer that carries a description, and what comes of it.
DESCRIPTIONS: list[Any] = [
    pytest.param(answered(500, {"error": "internal", "message": "oops"}), SfuError, id="500"),
    pytest.param(answered(502, b"<html>Bad Gateway</html>"), SfuError, id="502-html"),
    pytest.param(answered(409, {"error": "busy"}), SfuConflictError, id="409"),
    pytest.param(answered(403, b""), SfuAuthError, id="403-empty"),
    pytest.param(answered(200, b""), SfuError, id="empty"),
    pytest.param(answered(200, b"{"), SfuError, id="half-json"),
    pytest.param(answered(200, [1]), SfuError, id="list"),
    pytest.param(answered(200, {"sessionDescription": 7}), SfuError, id="number"),
    pytest.param(without("sessionDescription"), SfuError, id="no-description"),
    pytest.param(without("sessionId"), SfuError, id="no-session"),
    pytest.param(sdp(lambda text: "garbage"), NegotiationFailedError, id="garbage"),
    pytest.param(sdp(lambda text: text[: len(text) // 2]), MeteredError, id="cut"),
    pytest.param(sdp(lambda text: re.sub(r"a=mid:\S+\r\n", "", text)), MeteredError, id="no-mids"),
    pytest.param(
        sdp(lambda text: re.sub(r"a=rtpmap:.*\r\n", "", text)), MeteredError, id="no-codecs"
    ),
    pytest.param(
        sdp(lambda text: re.sub(r"a=ice-(ufrag|pwd):.*\r\n", "", text)),
        MeteredError,
        id="no-ice",
    ),
]


@pytest.mark.parametrize(("spoil", "kind"), DESCRIPTIONS)
def test_a_bad_answer_to_connect(
    spoil: Spoil, kind: type[MeteredError], sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    sfu.spoil["session/new"] = spoil
    client = SfuClient(**options)
    with pytest.raises(kind) as caught:
        client.connect(timeout=10 if kind is not MeteredError else 2)
    check_secrets(caught.value, options)
    assert client.state == "idle"
    del sfu.spoil["session/new"]
    client.connect()  # and then it works
    assert client.sessions()
    client.close()


@pytest.mark.parametrize(("spoil", "kind"), DESCRIPTIONS)
def test_a_bad_answer_to_publish(
    spoil: Spoil, kind: type[MeteredError], sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        sfu.spoil["track/publish"] = spoil
        failed = False
        try:
            client.publish(tone.audio, timeout=10)
        except kind as error:
            failed = True
            check_secrets(error, options)
        assert failed or kind is MeteredError  # aiortc can do with some of it
        del sfu.spoil["track/publish"]
        check_usable(client)


@pytest.mark.parametrize(("spoil", "kind"), DESCRIPTIONS)
def test_a_bad_answer_to_subscribe(
    spoil: Spoil, kind: type[MeteredError], sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)
        sfu.spoil["track/subscribe"] = spoil
        failed = False
        try:
            client.subscribe(published, timeout=10)
        except kind as error:
            failed = True
            check_secrets(error, options)
        assert failed or kind is MeteredError
        del sfu.spoil["track/subscribe"]
        check_usable(client)
        if client.state == "connected":
            track = client.subscribe(published)
            assert track.frames().get(timeout=20) is not None


@pytest.mark.parametrize("status", [400, 401, 500, 503])
@pytest.mark.parametrize("call", ["renegotiate", "track/close"])
def test_a_refusal_in_the_middle(
    call: str, status: int, sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)
        sfu.answers[call] = (status, {"error": "no", "message": "not today"})
        with pytest.raises(SfuError, match="not today") as caught:
            client.subscribe(published) if call == "renegotiate" else published.close()
        assert caught.value.status == status
        assert caught.value.endpoint.endswith(call)
        del sfu.answers[call]
        check_usable(client)


@pytest.mark.parametrize("call", ["track/publish", "track/subscribe", "renegotiate"])
@pytest.mark.parametrize("status", [404, 409])
def test_an_sfu_that_knows_another_session_than_we_do(
    call: str, status: int, sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    # As after a restart of the SFU that nobody has noticed yet: a new session is made, and the
    # call succeeds there.
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)
        session = client.session_id
        left = [status]

        def once(status: int, body: Any) -> tuple[int, Any]:
            return (left.pop(), {"error": "no"}) if left else (status, body)

        sfu.spoil[call] = once
        if (call, status) == ("track/subscribe", 404):
            sfu.spoil["tracks"] = lambda status, body: (404 if status == 200 else status, body)
        if call == "track/publish":
            with ToneSource(frequency=880) as other:
                client.publish(other.audio)
        else:
            track = client.subscribe(published)
            assert track.frames().get(timeout=20) is not None
        assert client.session_id != session


def test_an_sfu_that_always_disagrees(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        sfu.answers["track/publish"] = (409, {"error": "busy"})
        with pytest.raises(SfuConflictError):
            client.publish(tone.audio)
        del sfu.answers["track/publish"]
        check_usable(client)


def test_a_close_without_success(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)
        sfu.spoil["track/close"] = lambda status, body: (status, {**body, "success": False})
        with pytest.raises(SfuError, match="close"):
            published.close()
        check_usable(client)


def test_a_track_that_ends_while_it_is_closed_leaves_the_others_alone(
    sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with (
        SfuClient(**options) as client,
        ToneSource(frequency=440) as tone,
        ToneSource(frequency=880) as other,
    ):
        published = client.publish([tone.audio, other.audio])
        ends, stays = client.subscribe(published)
        session = client.session_id
        with stays.frames() as frames:
            frames.get(timeout=20)
            # As the SFU answers once it has dropped by itself what its publisher has ended.
            sfu.spoil["track/close"] = answered(404, {"error": "not_found"})
            ends.close()
            again = client.subscribe(published[0])
            again.frames().get(timeout=20)
            frames.get(timeout=20)
        assert (client.session_id, stays.restarts, stays.ended) == (session, 0, False)


def test_an_offer_of_fewer_tracks_than_asked_for(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    with SfuClient(**options) as client, ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)

        def none_sends(text: str) -> str:
            return text.replace("a=sendonly", "a=inactive")

        sfu.spoil["track/subscribe"] = sdp(none_sends)
        with pytest.raises(NegotiationFailedError, match="offered 0 new tracks") as caught:
            client.subscribe(published)
        assert caught.value.stage == "offer"
        del sfu.spoil["track/subscribe"]
        check_usable(client)


def test_without_recovery_a_broken_negotiation_closes_the_session(
    sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    client = SfuClient(**options, recover=False)
    with client, ToneSource(frequency=440) as tone:
        sfu.answers["track/publish"] = (500, {"error": "oops"})
        with pytest.raises(SfuError) as caught:
            client.publish(tone.audio)
        assert caught.value.status == 500
        wait_until(lambda: client.state == "closed")
        with pytest.raises(MeteredError, match=r"broke off.*recover"):
            client.publish(tone.audio)


@pytest.mark.parametrize("how", ["hold", "cut"])
@pytest.mark.parametrize("call", ["track/publish", "track/subscribe", "renegotiate"])
def test_no_answer_in_the_middle(
    call: str, how: str, sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with (
        SfuClient(**options) as client,
        ToneSource(frequency=440) as tone,
        ToneSource(frequency=880) as other,
    ):
        published = client.publish(tone.audio)
        getattr(sfu, how).add(call)

        def attempt(timeout: float) -> None:
            if call == "track/publish":
                client.publish(other.audio, timeout=timeout)
            else:
                client.subscribe(published, timeout=timeout)

        if how == "hold":
            assert expired(attempt, lambda error: error.sent, first=1).sent
        else:
            with pytest.raises(SfuError):
                attempt(20)
        getattr(sfu, how).clear()
        check_usable(client)


def test_stages_have_names(
    shared_cloud: LocalCloud, sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    # ICE: the answer leads to a port where nobody answers.
    sfu.spoil["session/new"] = sdp(lambda t: re.sub(r"(127\.0\.0\.1) \d+ typ", r"\1 9 typ", t))
    client = SfuClient(**options)
    expiry = expired(
        lambda timeout: client.connect(timeout=timeout), lambda error: "ICE" in str(error), first=1
    )
    assert "ICE" in str(expiry)
    # DTLS: the answer's fingerprint is not the certificate's.
    sfu.spoil["session/new"] = sdp(
        lambda t: re.sub(r"(a=fingerprint:sha-256 )..:..", r"\g<1>00:00", t)
    )
    with pytest.raises(NegotiationFailedError, match="DTLS") as caught:
        client.connect(timeout=10)
    assert caught.value.stage == "DTLS"
    del sfu.spoil["session/new"]
    # First frame: it is negotiated, and nothing comes.
    with client, VideoSource(64, 64) as screen:
        published = client.publish(screen)
        with pytest.raises(MeteredTimeoutError, match="arrived"):
            client.subscribe(published).frames().get(timeout=0.5)


def test_long_and_secret_answers_are_cut(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    secret = "Bearer abcdefghijklmnop"
    long = {"error": "x", "message": f"{secret} " + "y" * 100_000}
    for body in (long, json.dumps(long).encode() + b"<", {"deep": [long] * 3}):
        sfu.answers["sessions"] = (400, body)
        with SfuClient(**options) as client, pytest.raises(SfuError) as caught:
            client.sessions()
        text = f"{caught.value} {caught.value!r} {vars(caught.value)}"
        assert len(text) < 10_000
        assert "abcdefghijklmnop" not in text


def test_a_search_that_fails_says_so(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    with SfuClient(**options) as client:
        sfu.answers["sessions"] = (401, {"error": "unauthorized"})
        with pytest.raises(SfuAuthError):
            client.wait_for_track(timeout=20)
        sfu.answers["sessions"] = (200, [{"sessionId": 7}])
        with pytest.raises(SfuError, match="sessionId"):
            client.wait_for_track(timeout=20)


def test_queries_are_repeated_where_the_sfu_is_busy(
    sfu: ScriptedSfu, options: dict[str, Any]
) -> None:
    with SfuClient(**options) as client:
        left = [503, 429]

        def busy(status: int, body: Any) -> tuple[int, Any]:
            return (left.pop(), {"error": "busy"}) if left else (status, body)

        sfu.spoil["sessions"] = busy
        assert client.sessions()
        assert sfu.calls("sessions") == 3
        # What changes something is not: nobody knows whether it has.
        sfu.answers["track/publish"] = (503, {"error": "busy"})
        with ToneSource(frequency=440) as tone, pytest.raises(SfuError):
            client.publish(tone.audio)
        assert sfu.calls("track/publish") == 1


def test_closing_in_the_middle(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    client = SfuClient(**options)
    client.connect()
    with ToneSource(frequency=440) as tone:
        published = client.publish(tone.audio)
        sfu.answers["track/close"] = (500, {})
        with pytest.raises(SfuError):
            published.close()
        client.close()  # perhaps while it recovers
        assert client.state == "closed"
        with pytest.raises(ClosedError):
            client.sessions()


def check_usable(client: SfuClient) -> None:
    """Check that a session can be used soon, or has ended with a reason."""
    started = time.monotonic()
    with ToneSource(frequency=660) as tone:
        try:
            track = client.subscribe(client.publish(tone.audio, timeout=20), timeout=20)
        except MeteredTimeoutError:
            pytest.fail(f"stuck in state {client.state!r}")
        assert track.frames().get(timeout=20) is not None
    assert client.state == "connected"
    assert time.monotonic() - started < 20


def check_secrets(error: MeteredError, options: dict[str, Any]) -> None:
    text = f"{error} {error!r} {vars(error)}"
    assert options["secret"] not in text
    assert not re.search(r"ice-pwd:\w", text)
    if isinstance(error, SfuError):
        assert error.endpoint
    elif isinstance(error, NegotiationFailedError):
        assert error.stage in ("offer", "answer", "ICE", "DTLS")


def test_404_that_is_about_the_track(sfu: ScriptedSfu, options: dict[str, Any]) -> None:
    with SfuClient(**options) as client:
        session = client.session_id
        with pytest.raises(SfuNotFoundError):
            client.subscribe("no", "such")
        assert client.session_id == session  # nothing was lost over it

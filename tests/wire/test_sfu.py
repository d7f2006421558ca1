"""Test the bodies of the SFU's calls in both directions, and what each refuses."""

import json

import pytest

from metered_sync.wire import sfu
from metered_sync.wire.fields import FieldError

OFFER = sfu.SessionDescription("offer", "v=0\r\n")
ANSWER = sfu.SessionDescription("answer", "v=0\r\n")


@pytest.mark.parametrize(
    "value",
    [
        sfu.NewRequest(OFFER),
        sfu.NewRequest(OFFER, "some text"),
        sfu.PublishRequest(
            (sfu.PublishTrack("t", "0", "camera"), sfu.PublishTrack("u", "1")), OFFER
        ),
        sfu.SubscribeRequest((sfu.RemoteTrackRef("s", "t"),)),
        sfu.RenegotiateRequest(ANSWER),
        sfu.RenegotiateRequest(OFFER),
        sfu.CloseRequest(("t", "u"), OFFER),
        sfu.Negotiated("s", ANSWER),
        sfu.SubscribeOffer("s", OFFER, True),
        sfu.Closed("s", False, ANSWER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_round_trip(value):
    body = json.loads(json.dumps(value.body()))
    assert type(value).parse(body) == value
    assert type(value).parse({**body, "extra": [1]}) == value


def test_bodies_have_the_documented_fields():
    publish = sfu.PublishRequest((sfu.PublishTrack("t", "0", "camera"),), OFFER)
    assert publish.body() == {
        "tracks": [{"trackId": "t", "mid": "0", "customTrackName": "camera"}],
        "sessionDescription": {"type": "offer", "sdp": "v=0\r\n"},
    }
    assert sfu.SubscribeRequest((sfu.RemoteTrackRef("s", "t"),)).body() == {
        "tracks": [{"remoteSessionId": "s", "remoteTrackId": "t"}]
    }
    assert sfu.SubscribeOffer("s", OFFER, True).body() == {
        "sessionId": "s",
        "immediateRenegotiationRequired": True,
        "sessionDescription": {"type": "offer", "sdp": "v=0\r\n"},
    }
    assert "metadata" not in sfu.NewRequest(OFFER).body()


def test_lists():
    tracks = (
        sfu.TrackInfo("s", "t", None, "video", "0"),
        sfu.TrackInfo("s", "u", "mic", "audio", "1"),
    )
    body = sfu.tracks_body(tracks, "app")
    assert body[1] == {
        "sessionId": "s",
        "sfuAppId": "app",
        "trackId": "u",
        "customTrackName": "mic",
        "mid": "1",
        "trackKind": "audio",
    }
    assert sfu.parse_tracks(body) == tracks
    sessions = (sfu.SessionInfo("s", "connected", "text"), sfu.SessionInfo("u", "new"))
    body = sfu.sessions_body(sessions, "app")
    assert body[0] == {
        "sessionId": "s",
        "sfuAppId": "app",
        "connectionState": "connected",
        "metadata": "text",
    }
    assert sfu.parse_sessions(body) == sessions


def test_a_track_may_leave_out_what_is_optional():
    body = {"sessionId": "s", "trackId": "t", "trackKind": "video", "new": {}}
    assert sfu.parse_tracks([body]) == (sfu.TrackInfo("s", "t", None, "video", None),)


@pytest.mark.parametrize(
    ("told", "subscribers"), [(0, 0), (7, 7), (None, None), (-1, None), (True, None), ("3", None)]
)
def test_subscribers_are_taken_where_they_are_told(told: object, subscribers: int | None) -> None:
    body = {"sessionId": "s", "trackId": "t", "trackKind": "video", "subscribers": told}
    (track,) = sfu.parse_tracks([body])
    assert track.subscribers == subscribers
    (body,) = sfu.tracks_body([track], "app")
    assert body.get("subscribers") == subscribers
    assert track == sfu.TrackInfo("s", "t", None, "video")


DESCRIPTION = OFFER.body()


@pytest.mark.parametrize(
    ("parse", "body", "field"),
    [
        (sfu.NewRequest.parse, None, ""),
        (sfu.NewRequest.parse, [], ""),
        (sfu.NewRequest.parse, {}, "sessionDescription"),
        (sfu.NewRequest.parse, {"sessionDescription": "v=0"}, "sessionDescription"),
        (
            sfu.NewRequest.parse,
            {"sessionDescription": {"type": "rollback", "sdp": "x"}},
            "sessionDescription.type",
        ),
        (sfu.NewRequest.parse, {"sessionDescription": ANSWER.body()}, "sessionDescription.type"),
        (
            sfu.NewRequest.parse,
            {"sessionDescription": {"type": "offer", "sdp": 5}},
            "sessionDescription.sdp",
        ),
        (sfu.NewRequest.parse, {"sessionDescription": DESCRIPTION, "metadata": 1}, "metadata"),
        (sfu.PublishRequest.parse, {"sessionDescription": DESCRIPTION}, "tracks"),
        (sfu.PublishRequest.parse, {"tracks": {}, "sessionDescription": DESCRIPTION}, "tracks"),
        (
            sfu.PublishRequest.parse,
            {"tracks": [{"trackId": "t", "mid": 0}], "sessionDescription": DESCRIPTION},
            "tracks[0].mid",
        ),
        (
            sfu.SubscribeRequest.parse,
            {"tracks": [{"remoteSessionId": "s", "remoteTrackId": "t"}, {}]},
            "tracks[1].remoteSessionId",
        ),
        (sfu.SubscribeRequest.parse, {"tracks": [7]}, "tracks[0]"),
        (
            sfu.CloseRequest.parse,
            {"tracks": [{"trackId": ""}], "sessionDescription": DESCRIPTION},
            "tracks[0].trackId",
        ),
        (
            sfu.SubscribeOffer.parse,
            {"sessionId": "s", "sessionDescription": DESCRIPTION},
            "immediateRenegotiationRequired",
        ),
        (sfu.Closed.parse, {"sessionId": "s", "success": "yes"}, "success"),
        (sfu.parse_tracks, {"tracks": []}, ""),
        (sfu.parse_sessions, [{"sessionId": "s"}], "[0].connectionState"),
    ],
)
def test_a_malformed_body_names_the_field(parse, body, field):
    with pytest.raises(FieldError) as caught:
        parse(body)
    assert caught.value.field == field
    assert str(caught.value).startswith(f'"{field}" must be' if field else "the body must be")


def test_errors():
    assert sfu.parse_error(sfu.error_body("not_found", "no such session")) == (
        "not_found",
        "no such session",
    )
    assert sfu.parse_error({"error": "boom"}) == ("boom", None)
    assert sfu.parse_error({"message": 5}) == (None, None)
    assert sfu.parse_error("text") == (None, None)


def test_paths_are_encoded():
    assert sfu.PUBLISH.path("my app", "a/b") == "/api/sfu/my%20app/session/a%2Fb/track/publish"
    assert sfu.SESSIONS.path("x") == "/api/sfu/x/sessions"


def test_repr_keeps_the_ice_password():
    description = sfu.SessionDescription("offer", "a=ice-pwd:secret")
    assert "secret" not in repr(sfu.NewRequest(description))


def test_only_calls_that_change_nothing_of_a_session_may_be_repeated():
    calls = (
        sfu.NEW,
        sfu.PUBLISH,
        sfu.SUBSCRIBE,
        sfu.RENEGOTIATE,
        sfu.CLOSE,
        sfu.SESSIONS,
        sfu.TRACKS,
    )
    assert [call for call in calls if call.safe] == [sfu.NEW, sfu.SESSIONS, sfu.TRACKS]

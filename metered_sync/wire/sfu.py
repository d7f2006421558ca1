"""Parse and build the JSON bodies of the SFU's seven HTTP calls.

The client and the local SFU share them; source: docs/protocol/sfu.md#the-http-api. Each
body is a frozen value with two directions: ``Value.parse(body)`` takes decoded
JSON and raises :class:`~metered_sync.wire.fields.FieldError` where a field is wrong or missing,
``value.body()`` gives what goes into ``json.dumps``. Unknown extra
fields are ignored.

======================  =========================  ======================
call                    request                    answer
======================  =========================  ======================
:data:`NEW`             :class:`NewRequest`        :class:`Negotiated`
:data:`PUBLISH`         :class:`PublishRequest`    :class:`Negotiated`
:data:`SUBSCRIBE`       :class:`SubscribeRequest`  :class:`SubscribeOffer`
:data:`RENEGOTIATE`     :class:`RenegotiateRequest`  (status only)
:data:`CLOSE`           :class:`CloseRequest`      :class:`Closed`
:data:`SESSIONS`        none                       :func:`parse_sessions`
:data:`TRACKS`          none                       :func:`parse_tracks`
======================  =========================  ======================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from metered_sync.wire.fields import Fields, JsonObject, each, error_body, parse_error
from metered_sync.wire.session_description import SessionDescription

__all__ = [
    "CLOSE",
    "Endpoint",
    "Closed",
    "CloseRequest",
    "NEW",
    "Negotiated",
    "NewRequest",
    "PUBLISH",
    "PublishRequest",
    "PublishTrack",
    "RENEGOTIATE",
    "RemoteTrackRef",
    "RenegotiateRequest",
    "SESSIONS",
    "SUBSCRIBE",
    "SessionDescription",
    "SessionInfo",
    "SubscribeRequest",
    "SubscribeOffer",
    "TICKET",
    "TICKET_EXPIRED",
    "TRACKS",
    "TrackInfo",
    "error_body",
    "parse_description",
    "parse_error",
    "parse_sessions",
    "parse_tracks",
    "plain_session_id",
    "sessions_body",
    "tracks_body",
]

# --- the calls -------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    """The HTTP method and the path template of one of the seven calls."""

    method: str
    """``"GET"``, ``"POST"`` or ``"PUT"``."""
    route: str
    """The path with ``{app_id}`` and perhaps ``{session_id}`` to fill in."""
    safe: bool = False
    """Whether a call that failed may be repeated: it changes nothing, or nobody knows of it."""

    def path(self, app_id: str, session_id: str = "") -> str:
        """Return the path for this app and session, both percent-encoded."""
        return self.route.format(
            app_id=quote(app_id, safe=""), session_id=quote(session_id, safe="")
        )

    def path_at_gate(self, prefix: str, session_id: str = "") -> str:
        """Return the path at a gate, which stands below ``prefix``."""
        return prefix + self.path("", session_id).removeprefix(_BASE.format(app_id=""))


TICKET = re.compile(r"~(\d{1,12})~([A-Za-z0-9_-]{32})$", re.ASCII)
"""What a gate adds to a session's id: an expiry and a signature (docs/gate.md)."""

TICKET_EXPIRED = "ticket_expired"
"""The gate's code for a session whose ticket has expired, with the token that it was made by."""


def plain_session_id(session_id: str) -> str:
    """Return a session's id as the SFU knows it, without a gate's ticket."""
    return TICKET.sub("", session_id)


_BASE = "/api/sfu/{app_id}"
NEW = Endpoint("POST", _BASE + "/session/new", safe=True)
PUBLISH = Endpoint("POST", _BASE + "/session/{session_id}/track/publish")
SUBSCRIBE = Endpoint("POST", _BASE + "/session/{session_id}/track/subscribe")
RENEGOTIATE = Endpoint("PUT", _BASE + "/session/{session_id}/renegotiate")
CLOSE = Endpoint("POST", _BASE + "/session/{session_id}/track/close")
SESSIONS = Endpoint("GET", _BASE + "/sessions", safe=True)
TRACKS = Endpoint("GET", _BASE + "/session/{session_id}/tracks", safe=True)


# --- values ----------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackInfo:
    """A track that an SFU session publishes, as the SFU lists it."""

    session_id: str
    """The publishing session."""
    track_id: str
    """The track's id within that session."""
    name: str | None
    """The name given when it was published; `None` without one."""
    kind: str
    """``"video"`` or ``"audio"``."""
    mid: str | None = None
    """The media section of the publisher's SDP that carries it; `None` if not told."""
    subscribers: int | None = field(default=None, compare=False)
    """How many receive it now; `None` if not told: only the local cloud tells."""


@dataclass(frozen=True)
class SessionInfo:
    """A session of the app, as the SFU lists it."""

    session_id: str
    """The session's id."""
    state: str
    """The state of its peer connection: ``"new"``, ``"connecting"``, ``"connected"``, …"""
    metadata: str | None = None
    """The text given when the session was made; `None` without one."""


@dataclass(frozen=True)
class PublishTrack:
    """One track of a publish request."""

    track_id: str
    """The id that subscribers will ask for; the one in the SDP's ``msid``."""
    mid: str
    """The media section that carries it."""
    name: str | None = None
    """A name for people (``customTrackName``)."""


@dataclass(frozen=True)
class RemoteTrackRef:
    """One track of a subscribe request."""

    session_id: str
    """The session that publishes the track."""
    track_id: str
    """The track's id there."""


# --- requests --------------------------------------------------------------------------


@dataclass(frozen=True)
class NewRequest:
    """``POST /session/new``: connect with an offer."""

    description: SessionDescription
    """The client's first offer."""
    metadata: str | None = None
    """Any text; it is shown in the list of sessions."""

    @classmethod
    def parse(cls, body: object) -> NewRequest:
        fields = Fields(body)
        return cls(_description(fields, "offer"), fields.optional_text("metadata"))

    def body(self) -> JsonObject:
        result: JsonObject = {"sessionDescription": self.description.body()}
        if self.metadata is not None:
            result["metadata"] = self.metadata
        return result


@dataclass(frozen=True)
class PublishRequest:
    """``POST …/track/publish``: add tracks, with an offer that carries them."""

    tracks: tuple[PublishTrack, ...]
    description: SessionDescription

    @classmethod
    def parse(cls, body: object) -> PublishRequest:
        def track(fields: Fields) -> PublishTrack:
            return PublishTrack(
                track_id=fields.filled("trackId"),
                mid=fields.filled("mid"),
                name=fields.optional_text("customTrackName"),
            )

        fields = Fields(body)
        return cls(fields.each("tracks", track), _description(fields, "offer"))

    def body(self) -> JsonObject:
        tracks: list[JsonObject] = []
        for track in self.tracks:
            tracks.append({"trackId": track.track_id, "mid": track.mid})
            if track.name is not None:
                tracks[-1]["customTrackName"] = track.name
        return {"tracks": tracks, "sessionDescription": self.description.body()}


@dataclass(frozen=True)
class SubscribeRequest:
    """``POST …/track/subscribe``: ask for tracks; the SFU answers with its own offer."""

    tracks: tuple[RemoteTrackRef, ...]

    @classmethod
    def parse(cls, body: object) -> SubscribeRequest:
        def track(fields: Fields) -> RemoteTrackRef:
            return RemoteTrackRef(
                session_id=fields.filled("remoteSessionId"),
                track_id=fields.filled("remoteTrackId"),
            )

        return cls(Fields(body).each("tracks", track))

    def body(self) -> JsonObject:
        return {
            "tracks": [
                {
                    "remoteSessionId": plain_session_id(track.session_id),
                    "remoteTrackId": track.track_id,
                }
                for track in self.tracks
            ]
        }


@dataclass(frozen=True)
class RenegotiateRequest:
    """``PUT …/renegotiate``: usually the answer to the SFU's offer."""

    description: SessionDescription

    @classmethod
    def parse(cls, body: object) -> RenegotiateRequest:
        return cls(_description(Fields(body)))

    def body(self) -> JsonObject:
        return {"sessionDescription": self.description.body()}


@dataclass(frozen=True)
class CloseRequest:
    """``POST …/track/close``: end tracks, with an offer that no longer carries them."""

    track_ids: tuple[str, ...]
    description: SessionDescription

    @classmethod
    def parse(cls, body: object) -> CloseRequest:
        def track(fields: Fields) -> str:
            return fields.filled("trackId")

        fields = Fields(body)
        return cls(fields.each("tracks", track), _description(fields, "offer"))

    def body(self) -> JsonObject:
        return {
            "tracks": [{"trackId": track_id} for track_id in self.track_ids],
            "sessionDescription": self.description.body(),
        }


# --- answers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Negotiated:
    """The answer to ``session/new`` and ``track/publish``."""

    session_id: str
    description: SessionDescription
    """The SFU's answer to the client's offer."""

    @classmethod
    def parse(cls, body: object) -> Negotiated:
        fields = Fields(body)
        return cls(fields.filled("sessionId"), _description(fields, "answer"))

    def body(self) -> JsonObject:
        return {"sessionId": self.session_id, "sessionDescription": self.description.body()}


@dataclass(frozen=True)
class SubscribeOffer:
    """The answer to ``track/subscribe``: an offer from the SFU."""

    session_id: str
    description: SessionDescription
    """The SFU's offer, with one new media section per requested track, in their order."""
    renegotiation_required: bool
    """Whether the client must send its answer with ``renegotiate``."""

    @classmethod
    def parse(cls, body: object) -> SubscribeOffer:
        fields = Fields(body)
        return cls(
            fields.filled("sessionId"),
            _description(fields, "offer"),
            fields.flag("immediateRenegotiationRequired"),
        )

    def body(self) -> JsonObject:
        return {
            "sessionId": self.session_id,
            "immediateRenegotiationRequired": self.renegotiation_required,
            "sessionDescription": self.description.body(),
        }


@dataclass(frozen=True)
class Closed:
    """The answer to ``track/close``."""

    session_id: str
    success: bool
    description: SessionDescription
    """The SFU's answer to the client's offer."""

    @classmethod
    def parse(cls, body: object) -> Closed:
        fields = Fields(body)
        return cls(
            fields.filled("sessionId"), fields.flag("success"), _description(fields, "answer")
        )

    def body(self) -> JsonObject:
        return {
            "sessionId": self.session_id,
            "success": self.success,
            "sessionDescription": self.description.body(),
        }


def parse_description(fields: Fields) -> SessionDescription:
    """Return the description that the fields ``type`` and ``sdp`` hold; both must be filled."""
    fields.filled("sdp")
    return SessionDescription.read(fields)


def _read_track(fields: Fields) -> TrackInfo:
    """Return the track that an element of the answer to ``GET …/tracks`` describes."""
    return TrackInfo(
        session_id=fields.filled("sessionId"),
        track_id=fields.filled("trackId"),
        name=fields.optional_text("customTrackName"),
        kind=fields.filled("trackKind"),
        mid=fields.optional_text("mid"),
        subscribers=fields.whole_or_none("subscribers"),
    )


def _track_body(track: TrackInfo, app_id: str) -> JsonObject:
    """Return the object for ``json.dumps``; *app_id* is repeated in each track."""
    result: JsonObject = {
        "sessionId": track.session_id,
        "sfuAppId": app_id,
        "trackId": track.track_id,
        "customTrackName": track.name,
        "mid": track.mid,
        "trackKind": track.kind,
    }
    if track.subscribers is not None:
        result["subscribers"] = track.subscribers
    return result


def parse_tracks(body: object) -> tuple[TrackInfo, ...]:
    """Check the decoded answer to ``GET …/tracks``."""
    return each(body, _read_track)


def tracks_body(tracks: Iterable[TrackInfo], app_id: str) -> list[JsonObject]:
    """Return the answer to ``GET …/tracks`` for ``json.dumps``."""
    return [_track_body(track, app_id) for track in tracks]


def _read_session(fields: Fields) -> SessionInfo:
    """Return the session that an element of the answer to ``GET /sessions`` describes."""
    return SessionInfo(
        session_id=fields.filled("sessionId"),
        state=fields.filled("connectionState"),
        metadata=fields.optional_text("metadata"),
    )


def _session_body(session: SessionInfo, app_id: str) -> JsonObject:
    """Return the object for ``json.dumps``; *app_id* is repeated in each session."""
    return {
        "sessionId": session.session_id,
        "sfuAppId": app_id,
        "connectionState": session.state,
        "metadata": session.metadata,
    }


def parse_sessions(body: object) -> tuple[SessionInfo, ...]:
    """Check the decoded answer to ``GET /sessions``."""
    return each(body, _read_session)


def sessions_body(sessions: Iterable[SessionInfo], app_id: str) -> list[JsonObject]:
    """Return the answer to ``GET /sessions`` for ``json.dumps``."""
    return [_session_body(session, app_id) for session in sessions]


def _description(fields: Fields, expected: str | None = None) -> SessionDescription:
    description = parse_description(fields.object("sessionDescription"))
    if expected is not None and description.type != expected:
        raise fields.error("sessionDescription.type", f'must be "{expected}" here')
    return description

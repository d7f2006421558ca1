"""Parse and build the JSON bodies of the SFU's seven HTTP calls.

The client and the local SFU share them; source: docs/protocol/sfu.md#the-http-api. Each
body is a frozen value with two directions: ``Value.parse(body)`` takes decoded
JSON and raises :class:`SfuBodyError` when a field is missing or of the wrong
type, ``value.body()`` gives what goes into ``json.dumps``. Unknown extra
fields are ignored.

======================  =========================  ======================
call                    request                    answer
======================  =========================  ======================
:data:`NEW`             :class:`NewRequest`        :class:`Negotiated`
:data:`PUBLISH`         :class:`PublishRequest`    :class:`Negotiated`
:data:`SUBSCRIBE`       :class:`SubscribeRequest`  :class:`Subscribed`
:data:`RENEGOTIATE`     :class:`RenegotiateRequest`  (status only)
:data:`CLOSE`           :class:`CloseRequest`      :class:`Closed`
:data:`SESSIONS`        none                       :func:`parse_sessions`
:data:`TRACKS`          none                       :func:`parse_tracks`
======================  =========================  ======================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import quote

from metered_sync.wire.bodies import error_body, parse_error
from metered_sync.wire.sdp import SessionDescription

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
    "SfuBodyError",
    "SubscribeRequest",
    "Subscribed",
    "TRACKS",
    "TrackInfo",
    "error_body",
    "parse_description",
    "parse_error",
    "parse_sessions",
    "parse_tracks",
    "sessions_body",
    "tracks_body",
]

JsonObject = dict[str, Any]
T = TypeVar("T")


class SfuBodyError(ValueError):
    """A JSON body of the SFU's API is malformed; the message names the field.

    Attributes:
        field: Where the fault is, e.g. ``"tracks[1].mid"``; ``"body"`` for the whole.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


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

    @classmethod
    def parse(cls, body: object, where: str = "track") -> TrackInfo:
        """Check one decoded element of the answer to ``GET …/tracks``."""
        obj = _object(body, where)
        return cls(
            session_id=_string(obj, "sessionId", where),
            track_id=_string(obj, "trackId", where),
            name=_optional_string(obj, "customTrackName", where),
            kind=_string(obj, "trackKind", where),
            mid=_optional_string(obj, "mid", where),
        )

    def body(self, app_id: str) -> JsonObject:
        """Return the object for ``json.dumps``; *app_id* is repeated in each track."""
        return {
            "sessionId": self.session_id,
            "sfuAppId": app_id,
            "trackId": self.track_id,
            "customTrackName": self.name,
            "mid": self.mid,
            "trackKind": self.kind,
        }


@dataclass(frozen=True)
class SessionInfo:
    """A session of the app, as the SFU lists it."""

    session_id: str
    """The session's id."""
    state: str
    """The state of its peer connection: ``"new"``, ``"connecting"``, ``"connected"``, …"""
    metadata: str | None = None
    """The text given when the session was made; `None` without one."""

    @classmethod
    def parse(cls, body: object, where: str = "session") -> SessionInfo:
        """Check one decoded element of the answer to ``GET /sessions``."""
        obj = _object(body, where)
        return cls(
            session_id=_string(obj, "sessionId", where),
            state=_string(obj, "connectionState", where),
            metadata=_optional_string(obj, "metadata", where),
        )

    def body(self, app_id: str) -> JsonObject:
        """Return the object for ``json.dumps``; *app_id* is repeated in each session."""
        return {
            "sessionId": self.session_id,
            "sfuAppId": app_id,
            "connectionState": self.state,
            "metadata": self.metadata,
        }


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
        obj = _object(body, "body")
        return cls(_description(obj, "offer"), _optional_string(obj, "metadata"))

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
        def track(item: object, where: str) -> PublishTrack:
            obj = _object(item, where)
            return PublishTrack(
                track_id=_string(obj, "trackId", where),
                mid=_string(obj, "mid", where),
                name=_optional_string(obj, "customTrackName", where),
            )

        obj = _object(body, "body")
        return cls(_items(obj, "tracks", track), _description(obj, "offer"))

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
        def track(item: object, where: str) -> RemoteTrackRef:
            obj = _object(item, where)
            return RemoteTrackRef(
                session_id=_string(obj, "remoteSessionId", where),
                track_id=_string(obj, "remoteTrackId", where),
            )

        return cls(_items(_object(body, "body"), "tracks", track))

    def body(self) -> JsonObject:
        return {
            "tracks": [
                {"remoteSessionId": track.session_id, "remoteTrackId": track.track_id}
                for track in self.tracks
            ]
        }


@dataclass(frozen=True)
class RenegotiateRequest:
    """``PUT …/renegotiate``: usually the answer to the SFU's offer."""

    description: SessionDescription

    @classmethod
    def parse(cls, body: object) -> RenegotiateRequest:
        return cls(_description(_object(body, "body")))

    def body(self) -> JsonObject:
        return {"sessionDescription": self.description.body()}


@dataclass(frozen=True)
class CloseRequest:
    """``POST …/track/close``: end tracks, with an offer that no longer carries them."""

    track_ids: tuple[str, ...]
    description: SessionDescription

    @classmethod
    def parse(cls, body: object) -> CloseRequest:
        def track(item: object, where: str) -> str:
            return _string(_object(item, where), "trackId", where)

        obj = _object(body, "body")
        return cls(_items(obj, "tracks", track), _description(obj, "offer"))

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
        obj = _object(body, "body")
        return cls(_string(obj, "sessionId"), _description(obj, "answer"))

    def body(self) -> JsonObject:
        return {"sessionId": self.session_id, "sessionDescription": self.description.body()}


@dataclass(frozen=True)
class Subscribed:
    """The answer to ``track/subscribe``: an offer from the SFU."""

    session_id: str
    description: SessionDescription
    """The SFU's offer, with one new media section per requested track, in their order."""
    renegotiation_required: bool
    """Whether the client must send its answer with ``renegotiate``."""

    @classmethod
    def parse(cls, body: object) -> Subscribed:
        obj = _object(body, "body")
        required = obj.get("immediateRenegotiationRequired")
        if not isinstance(required, bool):
            raise SfuBodyError("immediateRenegotiationRequired", "must be a boolean")
        return cls(_string(obj, "sessionId"), _description(obj, "offer"), required)

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
        obj = _object(body, "body")
        success = obj.get("success")
        if not isinstance(success, bool):
            raise SfuBodyError("success", "must be a boolean")
        return cls(_string(obj, "sessionId"), success, _description(obj, "answer"))

    def body(self) -> JsonObject:
        return {
            "sessionId": self.session_id,
            "success": self.success,
            "sessionDescription": self.description.body(),
        }


def parse_description(body: object, where: str = "sessionDescription") -> SessionDescription:
    """Check a decoded ``{"type", "sdp"}`` object found at *where*."""
    obj = _object(body, where)
    kind: Any = _string(obj, "type", where)
    if kind not in ("offer", "answer"):
        raise SfuBodyError(f"{where}.type", 'must be "offer" or "answer"')
    return SessionDescription(kind, _string(obj, "sdp", where))


def parse_tracks(body: object) -> tuple[TrackInfo, ...]:
    """Check the decoded answer to ``GET …/tracks``."""
    return _list(body, "tracks", TrackInfo.parse)


def tracks_body(tracks: Iterable[TrackInfo], app_id: str) -> list[JsonObject]:
    """Return the answer to ``GET …/tracks`` for ``json.dumps``."""
    return [track.body(app_id) for track in tracks]


def parse_sessions(body: object) -> tuple[SessionInfo, ...]:
    """Check the decoded answer to ``GET /sessions``."""
    return _list(body, "sessions", SessionInfo.parse)


def sessions_body(sessions: Iterable[SessionInfo], app_id: str) -> list[JsonObject]:
    """Return the answer to ``GET /sessions`` for ``json.dumps``."""
    return [session.body(app_id) for session in sessions]


# --- field checks ----------------------------------------------------------------------


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise SfuBodyError(where, "must be an object")
    return cast("Mapping[str, object]", value)


def _string(obj: Mapping[str, object], name: str, where: str = "") -> str:
    value = obj.get(name)
    if not isinstance(value, str) or not value:
        raise SfuBodyError(_join(where, name), "must be a non-empty string")
    return value


def _optional_string(obj: Mapping[str, object], name: str, where: str = "") -> str | None:
    value = obj.get(name)
    if value is not None and not isinstance(value, str):
        raise SfuBodyError(_join(where, name), "must be a string")
    return value


def _description(obj: Mapping[str, object], expected: str | None = None) -> SessionDescription:
    description = parse_description(obj.get("sessionDescription"))
    if expected is not None and description.type != expected:
        raise SfuBodyError("sessionDescription.type", f'must be "{expected}" here')
    return description


def _items(
    obj: Mapping[str, object], name: str, parse: Callable[[object, str], T]
) -> tuple[T, ...]:
    return _list(obj.get(name), name, parse)


def _list(value: object, where: str, parse: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise SfuBodyError(where, "must be a list")
    return tuple(parse(item, f"{where}[{index}]") for index, item in enumerate(value))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

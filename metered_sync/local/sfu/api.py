"""Answer the SFU's seven HTTP calls, on aiohttp.

All errors are JSON objects with ``error`` (a word for programs) and ``message`` (for people).
Pages of any origin may call: every answer carries the CORS headers, and preflights are
answered. Sources: docs/protocol/sfu.md#the-http-api and
docs/protocol/sfu.md#how-the-local-sfu-answers.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from metered_sync.local.rest import Handler, Refusal, explain, read_json
from metered_sync.local.sfu.session import Session
from metered_sync.wire import sfu as wire
from metered_sync.wire.fields import FieldError

__all__ = ["Api", "Check", "Sessions"]

logger = logging.getLogger("metered_sync")

_MAX_REQUEST_BODY = 1 << 19
"""Bytes of a request's body; an offer of 200 sections fits."""
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Allow-Private-Network": "true",
    "Access-Control-Max-Age": "600",
}

Body = Any
Check = Callable[[Handler], Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Puts a check of the caller before a handler."""
JsonHandler = Callable[[web.Request], Awaitable[Body]]


class Sessions(Protocol):
    """The sessions of the SFU that the calls work on."""

    def session(self, session_id: str) -> Session | None: ...

    def sessions(self) -> list[wire.SessionInfo]: ...

    def new_session(self, metadata: str | None) -> Session: ...


class Api:
    """The HTTP routes of one SFU.

    Args:
        sessions: The SFU's sessions.
        app_id: The app that the paths name.
        secret: The bearer token that callers show.
    """

    def __init__(self, sessions: Sessions, app_id: str, secret: str) -> None:
        self._sessions = sessions
        self._app_id = app_id
        self._authorization = f"Bearer {secret}".encode()

    def routes(self) -> list[web.RouteDef]:
        """Return the seven routes, and a last one for whatever else is asked of the SFU."""
        routes = [
            web.route(call.method, call.route, self._answered(self._with_secret(run)))
            for call, run in self._calls()
        ]
        routes.append(web.route("OPTIONS", "/api/sfu/{rest:.*}", self._preflight))
        unknown = self._answered(self._with_secret(self._unknown))
        routes.append(web.route("*", "/api/sfu/{rest:.*}", unknown))
        return routes

    def routes_below(self, prefix: str, checked: Check) -> list[web.RouteDef]:
        """Return the seven calls below a path, with another check in place of the secret's."""
        return [
            web.route(call.method, prefix + call.route, checked(self._answered(run)))
            for call, run in self._calls()
        ]

    def _calls(self) -> list[tuple[wire.Endpoint, JsonHandler]]:
        return [
            (wire.NEW, self._new),
            (wire.PUBLISH, self._publish),
            (wire.SUBSCRIBE, self._subscribe),
            (wire.RENEGOTIATE, self._renegotiate),
            (wire.CLOSE, self._close),
            (wire.SESSIONS, self._list_sessions),
            (wire.TRACKS, self._list_tracks),
        ]

    # --- common ---

    def _with_secret(self, run: JsonHandler) -> JsonHandler:
        """Return the call, made only for callers who show the app's secret."""

        async def checked(request: web.Request) -> Body:
            self._authorize(request)
            return await run(request)

        return checked

    def _answered(self, run: JsonHandler) -> Handler:
        """Run a call, and turn its result or refusal into JSON."""

        async def handler(request: web.Request) -> web.Response:
            try:
                return _json(200, await run(request))
            except Refusal as refused:
                explain(refused.why)
                return _json(refused.status, wire.error_body(refused.code, str(refused)))
            except FieldError as error:
                explain(str(error))
                return _json(400, wire.error_body("bad_request", str(error)))
            except Exception:
                logger.exception("The SFU failed in %s %s", request.method, request.path)
                return _json(500, wire.error_body("internal", "the SFU failed; see its log"))

        return handler

    def _authorize(self, request: web.Request) -> None:
        app_id = request.match_info.get("app_id")
        if app_id is not None and app_id != self._app_id:
            why = f"the path names the app {app_id!r}; this cloud's is {self._app_id!r}"
            raise Refusal(401, "unauthorized", "no such SFU app", why)
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            why = "the secret is another one" if given else "there is no Authorization header"
            message = "the app's secret is wrong or missing"
            raise Refusal(401, "unauthorized", message, f"{why}; it is sfu_secret of this cloud")

    async def _preflight(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=_CORS)

    async def _unknown(self, request: web.Request) -> Body:
        raise Refusal(404, "not_found", f"no such call: {request.method} {request.path}")

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.session(request.match_info["session_id"])
        if session is None:
            raise Refusal(404, "not_found", "no such session; it may have ended")
        return session

    # --- the calls ---

    async def _new(self, request: web.Request) -> Body:
        wish = wire.NewRequest.parse(await _body(request))
        session = self._sessions.new_session(wish.metadata)
        try:
            answer = session.connect(wish.description)
        except BaseException:
            session.end()
            raise
        return wire.Negotiated(session.id, answer).body()

    async def _publish(self, request: web.Request) -> Body:
        session = self._session(request)
        wish = wire.PublishRequest.parse(await _body(request))
        async with session.lock:
            _check_alive(session)
            answer = session.publish(wish.tracks, wish.description)
        return wire.Negotiated(session.id, answer).body()

    async def _subscribe(self, request: web.Request) -> Body:
        session = self._session(request)
        wish = wire.SubscribeRequest.parse(await _body(request))
        if not wish.tracks:
            raise Refusal(400, "bad_request", "tracks: must not be empty")
        async with session.lock:
            _check_alive(session)
            tracks = []
            for reference in wish.tracks:
                publisher = self._sessions.session(reference.session_id)
                track = publisher.find_track(reference.track_id) if publisher else None
                if track is None:
                    message = f"session {reference.session_id!r} has no track "
                    raise Refusal(404, "not_found", message + repr(reference.track_id))
                tracks.append(track)
            offer = session.subscribe(tracks)
        return wire.SubscribeOffer(session.id, offer, renegotiation_required=True).body()

    async def _renegotiate(self, request: web.Request) -> Body:
        session = self._session(request)
        wish = wire.RenegotiateRequest.parse(await _body(request))
        async with session.lock:
            _check_alive(session)
            answer = session.renegotiate(wish.description)
        if answer is not None:
            return wire.Negotiated(session.id, answer).body()
        return {"sessionId": session.id}

    async def _close(self, request: web.Request) -> Body:
        session = self._session(request)
        wish = wire.CloseRequest.parse(await _body(request))
        async with session.lock:
            _check_alive(session)
            answer = session.close_tracks(wish.track_ids, wish.description)
        return wire.Closed(session.id, True, answer).body()

    async def _list_sessions(self, request: web.Request) -> Body:
        return wire.sessions_body(self._sessions.sessions(), self._app_id)

    async def _list_tracks(self, request: web.Request) -> Body:
        session = self._session(request)
        tracks = await session.settled_tracks()
        _check_alive(session)
        return wire.tracks_body(tracks, self._app_id)


def _check_alive(session: Session) -> None:
    if session.ended:
        raise Refusal(404, "not_found", "the session has ended")


async def _body(request: web.Request) -> object:
    """Read and decode a request's JSON, within bounds."""
    try:
        return await read_json(request, _MAX_REQUEST_BODY)
    except Refusal as refusal:
        code = "too_large" if refusal.status == 413 else "bad_request"
        raise Refusal(refusal.status, code, str(refusal), refusal.why) from None


def _json(status: int, body: Body) -> web.Response:
    return web.json_response(body, status=status, headers=_CORS)

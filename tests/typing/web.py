"""Views of a web application whose author annotates everything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from metered_sync import (
    ClosedError,
    ControlPlane,
    ControlPlaneError,
    Delivery,
    ErrorCode,
    IceServer,
    IceServerConfig,
    MeteredTimeoutError,
    NotConnectedError,
    ServerRequestError,
    SfuApi,
    SfuNotFoundError,
    SignallingClient,
    Subscription,
    Token,
    TurnApi,
    TurnCredential,
    Usage,
    WsCloseCode,
    mint_token,
)
from metered_sync.contrib.flask import Metered

app = Flask(__name__)
control = ControlPlane("sk_id_key", "sk_secret_key", timeout=5)
_lock = threading.Lock()
_client: SignallingClient | None = None

QUIET: ErrorCode = "peer_not_found"


def client() -> SignallingClient:
    """Return this process's client, opened on first use."""
    global _client
    with _lock:
        if _client is None:
            _client = SignallingClient(token_provider=own_token)
            _client.connect(timeout=5)
        return _client


def own_token() -> str:
    token: Token = control.mint_token(peer_id="server", permissions=["publish", "send"])
    print(token.expires_at - 60)
    return token.token


@app.post("/token")
def token() -> ResponseReturnValue:
    claims: dict[str, Any] = request.get_json()
    minted = mint_token(
        "sk_id_key",
        "sk_secret_key",
        peer_id=str(claims["name"]),
        channels=["rooms/*"],
        ttl=600,
        peer_metadata={"name": claims["name"]},
    )
    return jsonify(token=minted, length=len(minted))


@app.post("/rooms/<room>/messages")
def speak(room: str) -> ResponseReturnValue:
    try:
        client().publish(f"rooms/{room}", {"text": request.get_json()["text"]}, timeout=3)
    except (NotConnectedError, MeteredTimeoutError) as error:
        return jsonify(error=str(error)), 503
    except ServerRequestError as error:
        return jsonify(code=error.code, quiet=error.code == QUIET), 403
    return "", 204


@app.get("/rooms/<room>/members")
def members(room: str) -> ResponseReturnValue:
    try:
        names: list[str] = [name for name, _ in control.peers(f"rooms/{room}").items()]
    except ControlPlaneError as error:
        return jsonify(status=error.status, code=error.code), 502
    usage: Usage = control.usage()
    closed: int = control.disconnect("spammer")
    control.publish(f"rooms/{room}", {"closed": closed}, sender="server", metadata={"a": 1})
    return jsonify(names=names, used=usage.messages_used, plan=usage.plan.name)


@app.get("/rooms/<room>/events")
def events(room: str) -> Response:
    inbox = client().subscribe(f"rooms/{room}")
    return Response(lines(inbox), mimetype="text/event-stream")


def lines(inbox: Subscription) -> Iterator[str]:
    with inbox:
        while True:
            try:
                message = inbox.get(timeout=15)
            except MeteredTimeoutError:
                yield ": still here\n\n"
                continue
            except ClosedError:
                return
            yield f"data: {message.data}\n\n"


@app.get("/turn")
def turn() -> ResponseReturnValue:
    with TurnApi("app", secret_key="key") as api:
        servers: tuple[IceServer, ...] = tuple(api.ice_servers(region="europe"))
        credential: TurnCredential = api.create_credential(expires_in=600, label="web")
    own = IceServerConfig(urls="turn:turn.example.com", username="me", credential="secret")
    print(own.urls[0], credential.username)
    return jsonify([server.as_dict() for server in (*servers, own)])


async def negotiate(sdp: str) -> dict[str, Any]:
    with SfuApi("app", "secret") as api:
        made = await asyncio.to_thread(api.create_session, {"type": "offer", "sdp": sdp})
        try:
            return {"made": made, "tracks": await asyncio.to_thread(api.tracks, made["sessionId"])}
        except SfuNotFoundError as error:
            return {"status": error.status, "body": error.body}


def create_app() -> Flask:
    metered = Metered()
    made = Flask("made")
    metered.init_app(made)
    made.add_url_rule("/token", view_func=metered.token_view, methods=["POST"])
    made.add_url_rule("/news", view_func=metered.events_view("news", heartbeat=10))
    made.register_blueprint(metered.sfu_gate(origins=["https://app.example"]), url_prefix="/sfu")
    with made.app_context():
        metered.client().publish("news", {"members": len(metered.control().peers("news"))})
    return made


def deliver(text: str) -> Delivery:
    delivery = client().publish_nowait("log", text)
    if delivery.exception(timeout=1) is None:
        delivery.result()
    return delivery


def gone(code: int) -> bool:
    return code in (WsCloseCode.TOKEN_EXPIRED, WsCloseCode.ADMIN_DISCONNECT)

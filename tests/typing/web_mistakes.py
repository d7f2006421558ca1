"""Mistakes in views: a type checker reports each line that is marked as wrong."""

from __future__ import annotations

from metered_sync import (
    ControlPlane,
    ErrorCode,
    ServerRequestError,
    SfuApi,
    SignallingClient,
    TurnApi,
    WsCloseCode,
    mint_token,
)
from metered_sync.contrib.flask import Metered

print(ControlPlane("sk_id_key", "sk_secret_key", 5))  # wrong
control = ControlPlane("sk_id_key", "sk_secret_key")
token: str = control.mint_token(peer_id="ann")  # wrong
control.mint_token("ann")  # wrong
control.mint_token(peer_id="ann", channels=7)  # wrong
control.mint_token(peer_id="ann", ttl="1h")  # wrong
mint_token("sk_id_key", "sk_secret_key")  # wrong
mint_token("sk_id_key", "sk_secret_key", peer_id="ann").token  # wrong
print(control.peers("room")["ann"]["name"])  # wrong
print(control.usage()["plan"])  # wrong
print(control.usage().plan.names)  # wrong
control.disconnect("ann").close()  # wrong
control.publish("room")  # wrong
Metered("app")  # wrong
Metered().events_view(7)  # wrong
Metered().client().publish("room")  # wrong
code: ErrorCode = "not_found"  # wrong
print(WsCloseCode.EXPIRED)  # wrong
turn = TurnApi("app", secret="key")  # wrong
TurnApi("app").create_credential(600)  # wrong
TurnApi("app").create_credential().user  # wrong
api = SfuApi("app", "secret", timeout="5")  # wrong
SfuApi("app", "secret").create_session()  # wrong
SfuApi("app", "secret").renegotiate({"type": "answer", "sdp": ""})  # wrong


def provider() -> int:
    return 1


client = SignallingClient(token_provider=provider)  # wrong
try:
    SignallingClient(api_key="pk_live_key").publish("room", 1)
except ServerRequestError as error:
    print(error.status)  # wrong

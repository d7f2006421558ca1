"""A room for browsers: its page, the tokens to join it with, and the gate to the SFU.

GET  /                      the page
POST /token  {"page": …}    what a page joins with
…    /sfu/…                 the gate
"""

import argparse
import hashlib
import os
import time
from pathlib import Path

from flask import Flask, abort, jsonify, request, send_from_directory
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from metered_sync import SfuGate, mint_token

HERE = Path(__file__).resolve().parent
CLIENT = "node_modules/@metered-ca/realtime/dist"
TTL = 4 * 3600  # seconds; a session with the SFU lasts no longer than the token it was made with


def create_app(gate, key_id, key_secret, url, installed=HERE):
    """Return the application.

    The keys sign tokens for the messaging service at ``url``; ``installed`` is where npm has put
    the published client.
    """
    app = Flask(__name__, static_folder=None)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/sfu": gate.wsgi})

    @app.get("/")
    def page():
        return send_from_directory(HERE, "index.html")

    @app.get("/room.js")
    def room():
        return send_from_directory(HERE, "room.js", mimetype="text/javascript")

    @app.get(f"/{CLIENT}/<name>")
    def client(name):
        return send_from_directory(Path(installed) / CLIENT, name, mimetype="text/javascript")

    @app.post("/token")
    def token():
        """Let everybody in: put your own users, and what they may do, in this place."""
        try:
            secret = request.get_json()["page"]
        except (KeyError, TypeError, RecursionError):
            abort(400)
        if not isinstance(secret, str) or not 16 <= len(secret) <= 100:
            abort(400)
        # The same id for the same page, and for nobody else: the others do not know its secret.
        peer_id = "guest-" + hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:16]
        minted = mint_token(key_id, key_secret, peer_id=peer_id, channels=["rooms/*"], ttl=TTL)
        return jsonify(token=minted, expires_at=int(time.time()) + TTL, url=url)

    return app


def main():
    parser = argparse.ArgumentParser(description="A room for browsers.")
    parser.add_argument("--local", action="store_true", help="on a local cloud, in this process")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    if options.local:
        from metered_sync.local import LocalCloud

        with LocalCloud() as cloud:
            keys = cloud.key_id, cloud.key_secret
            gate = SfuGate(cloud.sfu_app_id, cloud.sfu_secret, dict([keys]), url=cloud.http_url)
            create_app(gate, *keys, cloud.url).run(port=options.port)
    else:
        keys = os.environ["METERED_KEY_ID"], os.environ["METERED_KEY_SECRET"]
        url = os.environ.get("METERED_URL", "wss://rms.metered.ca")
        gate = SfuGate(keys=dict([keys]))  # METERED_SFU_APP_ID, METERED_SFU_SECRET
        create_app(gate, *keys, url).run(port=options.port)


if __name__ == "__main__":
    main()

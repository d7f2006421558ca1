"""A chat's backend: users listen by themselves, and speak through the server.

POST /login                   {"name": …}      starts a session
POST /token                                    a token for the user's own connection
GET  /rooms/<room>/events                      what is said, for pages without a connection
POST /rooms/<room>/messages   {"text": …}      publishes to everybody in the room
GET  /rooms/<room>/members                     who is in the room
"""

import os
import secrets

from flask import Flask, abort, jsonify, request, session

from metered_sync import MeteredError, MeteredTimeoutError
from metered_sync.contrib.flask import Metered

app = Flask(__name__)
app.secret_key = os.environ.get("FLASK_SECRET_KEY") or secrets.token_hex()
metered = Metered(app)  # its keys are in the environment


def current_user():
    if "user" not in session:
        abort(401)
    return session["user"]


def for_user():
    """Say what the token of the user's browser permits: to listen and be seen, in any room."""
    user = current_user()
    return {
        "peer_id": user["id"],
        "channels": ["rooms/*"],
        "permissions": ["subscribe", "presence"],
        "ttl": 600,
        "peer_metadata": {"name": user["name"]},
    }


app.config["METERED_TOKEN"] = for_user
app.add_url_rule("/token", view_func=metered.token_view, methods=["POST"])


def posted(name):
    """Return a text of the request's body."""
    try:
        text = request.get_json()[name]
        text.encode()  # half a surrogate pair is no text that could be sent
    except (AttributeError, KeyError, TypeError, UnicodeError, RecursionError):
        abort(400)
    return text


def may_use(user, room):
    """Say whether a user may hear a room, speak in it, and see who is there: here, everybody."""
    return True


def channel_of(room):
    """Return the channel of a room, if this user may use it."""
    if not room.isalnum() or len(room) > 40:
        abort(404)
    if not may_use(current_user(), room):
        abort(403)
    return f"rooms/{room}"


@app.post("/login")
def login():
    name = posted("name").strip()
    if not 0 < len(name) <= 80:
        abort(400)
    session["user"] = {"id": f"user-{secrets.token_hex(8)}", "name": name}  # a database's job
    return jsonify(session["user"])


@app.get("/rooms/<room>/events")
def events(room):
    return metered.events_view(channel_of(room))()


@app.post("/rooms/<room>/messages")
def speak(room):
    user, channel = current_user(), channel_of(room)
    client = metered.client()
    client.publish(channel, {"from": user["name"], "text": posted("text")[:1000]})
    return jsonify(sender=client.peer_id)


@app.get("/rooms/<room>/members")
def members(room):
    peers = metered.control().peers(channel_of(room))
    return jsonify({peer: about.get("name") for peer, about in peers.items() if about})


@app.errorhandler(MeteredError)
def messaging_failed(error):
    app.logger.warning("%s", error)  # no key or token is ever in there
    late = isinstance(error, MeteredTimeoutError)
    return jsonify(error="messaging is not available"), 504 if late else 503

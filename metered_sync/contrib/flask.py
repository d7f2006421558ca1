"""Give a Flask application a connection, tokens for its users, events and the gate to the SFU.

::

    app = Flask(__name__)
    app.config.from_prefixed_env()  # or METERED_KEY_ID=…, METERED_KEY_SECRET=… right here
    metered = Metered(app)

Each method of :class:`Metered` is a function of this module, too, for the application that handles
the request. See ``docs/flask.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from flask import Blueprint, Flask, Response, current_app, jsonify, request
    from flask.cli import with_appcontext
except ImportError as error:
    raise ImportError(
        f"metered_sync.contrib.flask needs Flask ({error.name} is missing): "
        "run  pip install 'metered_sync[flask]'"
    ) from error

import click
from markupsafe import Markup
from werkzeug.exceptions import Forbidden, Unauthorized

from metered_sync.client import SignallingClient
from metered_sync.contrib.event_stream import HEADERS, HEARTBEAT_PAUSE
from metered_sync.contrib.resources import GateMaker, Resources, html_json
from metered_sync.contrib.settings import name_problems, read_settings, value_problems
from metered_sync.control import ControlPlane
from metered_sync.gate import SfuGate
from metered_sync.gate.wsgi import MAX_READ
from metered_sync.wire.arguments import check_number
from metered_sync.wire.names import check_channel

__all__ = [
    "Metered",
    "client",
    "control",
    "events_view",
    "metered_config",
    "metered_token",
    "sfu_gate",
    "token_view",
]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""All that a page may send: the gate itself says which of them it does not answer."""
PREFIX = "METERED_"
"""What the names of settings begin with."""
_OTHERS = ("METERED_SYNC_", "METERED_TURN_", "METERED_LOCAL_")
"""What variables of the library begin with that are no settings here."""


class Metered:
    """The library as an extension of Flask.

    Settings are ``METERED_KEY_ID``, ``METERED_KEY_SECRET``, ``METERED_KEY``, ``METERED_URL``,
    ``METERED_SFU_APP_ID``, ``METERED_SFU_SECRET``, ``METERED_SFU_URL`` and ``METERED_TOKEN`` in
    ``app.config``; but for the last one the environment stands in where they are missing. They are
    read when something is first used.

    Templates get ``metered_token()`` and ``metered_config()``; the command line ``flask metered``.

    Args:
        app: The application; or call :meth:`init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an application the functions of its templates and the command ``metered``.

        What is wrong with the settings that are there already is logged as warnings.
        """
        settings = _resources(app).raw_settings()
        problems = [*name_problems(settings), *value_problems(settings, functions=False)]
        for problem in problems:
            if problem.code.startswith("E"):
                app.logger.warning("%s", problem)
        app.jinja_env.globals.update(
            metered_token=self.metered_token, metered_config=self.metered_config
        )
        app.cli.add_command(_command)

    def client(self) -> SignallingClient:
        """Return the connected client that all threads of this process share.

        It is opened when it is first asked for, and in each worker after a fork anew. With a secret
        key it connects with a token of its own, which has all the key's rights; else with
        ``METERED_KEY``. Its calls have 5 seconds, unless they say otherwise.

        Raises:
            NotConnectedError: Connecting has failed within the last two seconds.
            SignallingConnectError, MeteredTimeoutError: It has failed now.
            ValueError: The settings cannot be used.
        """
        return self._resources().client()

    def control(self) -> ControlPlane:
        """Return the control plane, for which the secret key must be set."""
        return self._resources().control()

    def token_view(self) -> Response:
        """Answer with a token for whoever is logged in: a view, for GET and POST.

        The function that ``METERED_TOKEN`` names, or is, decides: it is called without arguments in
        the request's context, and returns the keyword arguments of
        :func:`~metered_sync.mint_token`, of which ``peer_id`` is needed. ``None`` refuses with 403;
        so does ``abort(403)``.

        Returns:
            ``{"token": …, "expires_at": …}``, the latter in unix seconds.
        """
        minted = self._minted()
        answer: Response = jsonify({"error": "refused"} if minted is None else minted)
        answer.status_code = 403 if minted is None else 200
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def events_view(
        self, channel: str, *, heartbeat: float = HEARTBEAT_PAUSE
    ) -> Callable[[], Response]:
        """Return a view of a channel's messages as server-sent events, for ``EventSource``.

        Each message is one ``data:`` line, its data as JSON. Everybody may open it: decorate it, or
        call it in a view that asks who it is. It holds a thread of the server until the page has
        gone, which is noticed at the second heartbeat.

        Args:
            channel: The name of a channel, or a pattern.
            heartbeat: Seconds of silence after which a comment is sent.
        """
        check_channel(channel)
        pause = check_number("heartbeat", heartbeat, above=True, unit="seconds")

        def events() -> Response:
            chunks = self._resources().events(channel, pause) if request.method == "GET" else ()
            return Response(chunks, headers=HEADERS, mimetype="text/event-stream")

        return events

    def sfu_gate(
        self, gate: SfuGate | None = None, *, name: str = "sfu_gate", **options: Any
    ) -> Blueprint:
        """Return a blueprint that serves a gate to the SFU.

        Register it below the address that members are given::

            app.register_blueprint(metered.sfu_gate(), url_prefix="/sfu")

        Args:
            gate: The gate; unless given, one is made with the first call.
            name: The blueprint's name.
            options: Of :class:`~metered_sync.SfuGate`, instead of what the settings say.

        Raises:
            TypeError: A gate and options for another one.
        """
        maker = GateMaker(gate, options)
        blueprint = Blueprint(name, __name__)

        # (Flask answers OPTIONS by itself unless told not to.)
        @blueprint.route(
            "/", defaults={"path": ""}, methods=METHODS, provide_automatic_options=False
        )
        @blueprint.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
        def call(path: str) -> Response:
            body = request.stream.read(MAX_READ + 1) if request.content_length else b""
            status, headers, content = maker.get(self._resources()).handle(
                request.method, f"/{path}", dict(request.headers), body
            )
            return Response(content, status, headers)

        return blueprint

    def metered_token(self) -> str:
        """Return a token as :meth:`token_view` makes it; an empty text where it refuses."""
        return str((self._minted_for_page() or {}).get("token", ""))

    def metered_config(self) -> Markup:
        """Return what a page needs to connect, as JSON that may stand in a script.

        It has ``url``, ``key`` (the publishable one, or null), ``token`` and ``expires_at`` (null
        where there is no ``METERED_TOKEN``, or it refuses).
        """
        resources = self._resources()
        minted = self._minted_for_page() if resources.settings().has("TOKEN") else None
        return Markup(html_json(resources.page_config(minted)))

    def _minted(self) -> dict[str, Any] | None:
        """Return a token for whoever is logged in; ``None`` where the application refuses."""
        resources = self._resources()
        wanted = resources.token_function()()
        return None if wanted is None else resources.token(wanted)

    def _minted_for_page(self) -> dict[str, Any] | None:
        try:  # (abort() in the application's function would refuse the whole page)
            return self._minted()
        except (Forbidden, Unauthorized):
            return None

    def _resources(self) -> Resources:
        app = current_app or self._app
        if app is None:
            raise RuntimeError(
                "metered_sync.contrib.flask is used outside of an application's context: write "
                "with app.app_context(): …, or make Metered(app)"
            )
        return _resources(app)


def _resources(app: Flask) -> Resources:
    """Return what an application uses, made if need be."""
    found: Resources | None = app.extensions.get("metered")
    if found is None:
        made = Resources(lambda: read_settings("Metered", _config(app), PREFIX))
        found = app.extensions.setdefault("metered", made)
    return found


def _config(app: Flask) -> dict[str, Any]:
    return {
        name: value
        for name, value in app.config.items()
        if name.startswith(PREFIX) and not name.startswith(_OTHERS)
    }


@click.command(
    "metered",
    short_help="Talk to Metered with the application's keys.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
@with_appcontext
def _command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run doctor, listen, publish or serve with the application's settings."""
    context.exit(_resources(current_app).run_command("flask metered", arguments))


_current = Metered()
client = _current.client
control = _current.control
token_view = _current.token_view
events_view = _current.events_view
sfu_gate = _current.sfu_gate
metered_token = _current.metered_token
metered_config = _current.metered_config

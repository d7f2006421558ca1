"""Serve what browsers need of a Flask application: the gate to the SFU."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from metered_sync.gate import SfuGate
from metered_sync.gate.wsgi import MAX_READ

__all__ = ["sfu_gate"]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""All that a page may send: the gate itself says which of them it does not answer."""


def sfu_gate(gate: SfuGate | None = None, *, name: str = "sfu_gate", **options: Any) -> Blueprint:
    """Return a blueprint that serves a gate to the SFU.

    Register it below the address that members are given::

        app.register_blueprint(sfu_gate(keys={"sk_id_…": "sk_secret_…"}), url_prefix="/sfu")

    Args:
        gate: The gate; unless given, one is made.
        name: The blueprint's name.
        options: Of :class:`~metered_sync.SfuGate`, to make it.

    Raises:
        TypeError: A gate and options for another one.
        ValueError: As :class:`~metered_sync.SfuGate`.
    """
    if gate is not None and options:
        raise TypeError("sfu_gate takes a gate, or the options to make one, not both")
    served = gate if gate is not None else SfuGate(**options)
    blueprint = Blueprint(name, __name__)

    # (Flask answers OPTIONS by itself unless told not to.)
    @blueprint.route("/", defaults={"path": ""}, methods=METHODS, provide_automatic_options=False)
    @blueprint.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
    def call(path: str) -> Response:
        body = request.stream.read(MAX_READ + 1) if request.content_length else b""
        status, headers, content = served.handle(
            request.method, f"/{path}", dict(request.headers), body
        )
        return Response(content, status, headers)

    return blueprint

"""Make a local cloud with the keys of development, and find one that runs.

These keys are the same on each machine, and no secret: whoever knows them gets as far as a loopback
address. ``serve --dev`` serves with them on a fixed port, where ``--local`` looks for it.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import click

from metered_sync.errors import MeteredError
from metered_sync.wire.arguments import shown

if TYPE_CHECKING:
    from metered_sync.local import LocalCloud

__all__ = ["DEV_KEYS", "dev_cloud", "dev_port", "running_dev_cloud"]

DEV_KEYS = {
    "publishable_key": "pk_live_local_development_only",
    "key_id": "sk_id_local_development_only",
    "key_secret": "sk_secret_local_development_only_and_no_secret",
    "sfu_app_id": "app_local_development_only",
    "sfu_secret": "sfu_secret_local_development_only_and_no_secret",
    "turn_app": "local",
    "turn_api_key": "turn-api-key-local-development-only",
    "turn_secret_key": "turn-secret-key-local-development-only",
    "turn_secret": "turn-secret-local-development-only",
}
"""By the names of :class:`~metered_sync.local.LocalCloud`'s attributes."""
DEV_PORT = 8797
"""Where ``serve --dev`` serves; ``METERED_LOCAL_PORT`` names another port."""
PROBE_TIMEOUT = 2.0
"""Seconds that a running cloud may take to answer."""


def dev_port() -> int:
    """Return the port of ``serve --dev``."""
    given = os.environ.get("METERED_LOCAL_PORT", "")
    if not given:
        return DEV_PORT
    if not (given.isascii() and given.isdecimal() and 0 < int(given) < 65536):
        raise click.UsageError(f"METERED_LOCAL_PORT must be a TCP port, not {shown(given)}")
    return int(given)


def dev_cloud(**options: Any) -> LocalCloud:
    """Return a local cloud, not started, with the keys of development."""
    from metered_sync.local import LocalCloud

    cloud = LocalCloud(**options)
    for name, value in DEV_KEYS.items():
        setattr(cloud, name, value)
    return cloud


def running_dev_cloud() -> str | None:
    """Return the authority, ``host:port``, of a running ``serve --dev``; ``None`` if none runs."""
    from metered_sync import ControlPlane

    port = dev_port()
    try:
        socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT).close()
    except OSError:  # nobody there: REST would try again
        return None
    authority = f"127.0.0.1:{port}"
    with ControlPlane(
        DEV_KEYS["key_id"], DEV_KEYS["key_secret"], url=f"http://{authority}"
    ) as plane:
        try:
            plane.usage(timeout=PROBE_TIMEOUT)
        except MeteredError:  # another program
            return None
    return authority

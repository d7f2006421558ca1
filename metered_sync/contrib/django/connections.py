"""Connections of a Django project, made of its settings."""

from __future__ import annotations

import logging
import queue
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from metered_sync.client import SignallingClient
from metered_sync.contrib.resources import Resources
from metered_sync.contrib.settings import WebSettings, read_settings
from metered_sync.control import ControlPlane
from metered_sync.delivery import Delivery
from metered_sync.errors import MeteredError, MeteredTimeoutError
from metered_sync.wire.json_codec import decode, encode
from metered_sync.wire.names import check_one_channel

__all__ = ["client", "control", "project_settings", "publish_on_commit", "resources"]

logger = logging.getLogger("metered_sync")
ACK_WAIT = 1.0
"""Seconds that a request waits, after its commit, for the acknowledgement of what it publishes."""


def project_settings() -> WebSettings:
    """Return the setting ``METERED``, and what the environment adds to it.

    Raises:
        ImproperlyConfigured: It is no dict.
    """
    if not isinstance(getattr(settings, "METERED", {}), Mapping):
        raise ImproperlyConfigured("METERED must be a dict")
    return read_settings("METERED", getattr(settings, "METERED", {}))


resources = Resources(project_settings, ImproperlyConfigured)
"""What this project uses."""


def client() -> SignallingClient:
    """Return the connected client that all threads of this process share.

    It is opened when it is first asked for, and in each worker after a fork anew. With a secret key
    it connects with a token of its own, which has all the key's rights; else with ``KEY``. Its
    calls have 5 seconds, unless they say otherwise.

    Raises:
        NotConnectedError: Connecting has failed within the last two seconds.
        SignallingConnectError, MeteredTimeoutError: It has failed now.
        ImproperlyConfigured: The settings cannot be used.
    """
    return resources.client()


def control() -> ControlPlane:
    """Return the control plane, for which the secret key must be set."""
    return resources.control()


def publish_on_commit(channel: str, data: Any, *, using: str | None = None) -> None:
    """Publish once the transaction is committed; at once where there is none.

    What is published is what the data are now. After a rollback nothing is. The request waits for
    the acknowledgement for at most a second, and not at all during an outage, where the message
    goes out after the reconnect. A failure is logged (``metered_sync``, ERROR), and breaks neither
    the request nor what else is to be done after the commit.

    Args:
        channel: 1 to 256 bytes of UTF-8.
        data: Anything that JSON can carry.
        using: The database whose transaction it is; the default one unless given.

    Raises:
        TypeError, ValueError: The data are not JSON, or the channel has no such name: at once.
    """
    check_one_channel(channel, "publish_on_commit")
    text = encode(data)
    transaction.on_commit(lambda: _publish(channel, text), using=using, robust=True)


def _publish(channel: str, text: str) -> None:
    try:
        connected = resources.client()
        delivery = connected.publish_nowait(channel, decode(text))
    except (ImproperlyConfigured, MeteredError, queue.Full) as error:
        _tell(channel, error)
        return
    delivery.add_done_callback(lambda done: _log(channel, done))
    if connected.state == "connected":
        try:
            delivery.exception(timeout=ACK_WAIT)
        except MeteredTimeoutError:
            pass  # the callback tells how it went


def _log(channel: str, delivery: Delivery) -> None:
    error = delivery.exception(timeout=0)
    if error is not None:
        _tell(channel, error)


def _tell(channel: str, error: BaseException) -> None:
    logger.error("publish_on_commit: nothing was published to %r: %s", channel, error)

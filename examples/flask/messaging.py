"""This process's connection to Realtime Messaging, opened when it is first needed."""

import os
import threading
import time

from metered_sync import MeteredError, NotConnectedError, SignallingClient, mint_token

KEY_ID = os.environ["METERED_KEY_ID"]
KEY_SECRET = os.environ["METERED_KEY_SECRET"]
URL = os.environ.get("METERED_URL")  # unset: the real service

_lock = threading.Lock()
_client = None
_owner = None
_down_until = 0.0


def get_client():
    """Return a connected client that all threads of this process share.

    A connection cannot be taken along when a server forks its workers, so each opens its own.
    A lost connection comes back by itself; one that ended for good is opened anew here. Where
    that fails, it is not tried again for two seconds.
    """
    global _client, _owner, _down_until
    with _lock:
        if _owner != os.getpid() or _client.state == "closed":
            if time.monotonic() < _down_until:  # whoever waits for the lock need not try, too
                raise NotConnectedError("connecting has failed a moment ago")
            client = SignallingClient(token_provider=_own_token, url=URL, timeout=5)
            try:
                client.connect()
            except MeteredError:
                _down_until = time.monotonic() + 2
                raise
            _client, _owner = client, os.getpid()
        return _client


def _own_token():
    """Sign a token for the server itself: it publishes, and nothing else."""
    return mint_token(KEY_ID, KEY_SECRET, peer_id=f"web-{os.getpid()}", permissions=["publish"])

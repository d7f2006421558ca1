"""Serve the service's protocols on one machine: the local cloud.

For development, tests and demos. Third-party clients work against it too.

=========== ===========================================================================
cloud       the local cloud as one blocking object
servers     all of its servers behind one port, on one event loop
signalling  the messaging service: connections, from the upgrade to the close
requests    what clients ask for, carried out, or refused in words for them
connections the connections of clients, and the order in which frames leave
broker      channels, patterns, presence: who is connected, who has subscribed to what
keys        the keys of the app, and who comes with which
meter       what is counted: connections, messages, attempts to connect
control     the five REST calls of the control plane
turn        the REST calls of the TURN service, and the credentials they hand out
rest        what the HTTP calls share: reading a body, answering, refusing
sfu         the SFU, which forwards media without decoding it
faults      faults to inject
console     pages that show the cloud in a browser
frame_log   the frames that clients sent and got, for tests to look at and to wait for
=========== ===========================================================================
"""

from __future__ import annotations

try:
    import aiohttp
    import OpenSSL
    import pylibsrtp
except ImportError as error:
    raise ImportError(
        f"the local cloud needs more packages ({error.name} is missing): "
        "run  pip install 'metered_sync[local]'"
    ) from error

from metered_sync.local.cloud import LocalCloud

assert aiohttp
assert OpenSSL
assert pylibsrtp

__all__ = ["LocalCloud"]

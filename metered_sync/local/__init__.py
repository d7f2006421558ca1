"""The local cloud: a real server of the service's protocols, for one machine.

For development, tests and demos. Third-party clients work against it too.
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

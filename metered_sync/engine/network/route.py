"""Choose the way to a service: through which proxy, and trusting whom."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from metered_sync.engine.network.certificates import Authorities
from metered_sync.engine.network.proxies import Proxy, proxy_for

__all__ = ["Route"]


@dataclass(frozen=True)
class Route:
    """The way to one service, as options and environment have it at that moment."""

    host: str
    proxy: Proxy | None
    authorities: Authorities

    @classmethod
    def choose(cls, origin: str, ca_file: str | None, *, socks: str) -> Route:
        """Return the way to an origin.

        Args:
            origin: The service's.
            ca_file: The file of certificates that a client was given.
            socks: The module by which the caller reaches SOCKS proxies.

        Raises:
            ValueError: A variable of the environment cannot be used; the text says which.
        """
        proxy = proxy_for(origin, socks=socks)
        return cls(urlsplit(origin).hostname or "", proxy, Authorities.choose(ca_file))

    def tls_failure(self, error: BaseException) -> str | None:
        """Say why TLS has failed, and what to do about it; ``None`` for another error."""
        return self.authorities.failure(error, self.host)

    def through(self, reason: str) -> str:
        """Return why the service was not reached, with the proxy that leads there."""
        return reason if self.proxy is None else f"{reason}, through {self.proxy}"

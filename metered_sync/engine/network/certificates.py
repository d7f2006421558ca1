"""Choose the authorities whose certificates are trusted, and say why TLS has failed.

For messaging and REST alike: ``ca_file=…``, else the first of the environment's variables that
is set; else each has its own default (the system's authorities, and those of ``certifi``).
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from metered_sync.wire.arguments import shown

__all__ = ["Authorities", "check_ca_file"]

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN = (2, 18, 19, 20, 21, 24)
_OTHER_NAME = (62, 63, 64)
"""OpenSSL's codes of refused certificates (``X509_V_ERR_…``)."""
_NO_CERTIFICATES = "has no certificates in PEM form"
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "RECORD_TOO_SMALL",
    "UNKNOWN_PROTOCOL",
)
"""OpenSSL's reasons where what came was not TLS."""


@dataclass(frozen=True)
class Authorities:
    """The authorities that one connection trusts."""

    path: str | None
    """A file of certificates in PEM form, or a folder of them; ``None`` for the default."""
    source: str
    """The option or variable that names it."""

    @classmethod
    def choose(cls, ca_file: str | None) -> Authorities:
        """Return those of a client with this ``ca_file``; the environment's otherwise."""
        if ca_file is not None:
            return cls(ca_file, "ca_file")
        for variable in _VARIABLES:
            if os.environ.get(variable):
                return cls(os.environ[variable], variable)
        return cls(None, "")

    def context(self) -> ssl.SSLContext:
        """Return a client's context that trusts them.

        Raises:
            ValueError: The file cannot be read, or has no certificates.
        """
        if self.path is None:
            return ssl.create_default_context()
        try:
            if os.path.isdir(self.path):
                return ssl.create_default_context(capath=self.path)
            return ssl.create_default_context(cafile=self.path)
        except ssl.SSLError:
            problem = _NO_CERTIFICATES
        except OSError as error:
            problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise ValueError(f"{self.source}={shown(self.path)} {problem}")

    def verify(self) -> str | bool:
        """Return what ``requests`` takes for them; raises as :meth:`context`."""
        if self.path is None:
            return True
        if not os.access(self.path, os.R_OK):
            self.context()  # says why
        return self.path

    def failure(self, error: BaseException, host: str) -> str | None:
        """Say why TLS has failed, and what to do about it; ``None`` for another error."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._refused(error, host)
        if not isinstance(error, ssl.SSLError):
            return None
        if isinstance(error, ssl.SSLEOFError):
            return (
                f"{host} ended the connection during the TLS handshake; does it speak TLS on that "
                "port?"
            )
        if error.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
            return f"{self.source}={shown(self.path)} {_NO_CERTIFICATES}"
        if error.reason in _NO_TLS:
            return f"what answers at {host} does not speak TLS on that port; is the url right?"
        return f"the TLS handshake with {host} failed ({error.reason or type(error).__name__})"

    def _refused(self, error: ssl.SSLCertVerificationError, host: str) -> str:
        """Say why the server's certificate was not accepted."""
        code = error.verify_code
        if code == _EXPIRED:
            return (
                f"the certificate of {host} has expired: it must be renewed there (or is this "
                "machine's clock wrong?)"
            )
        if code == _NOT_YET_VALID:
            return f"the certificate of {host} is not valid yet: is this machine's clock right?"
        if code in _OTHER_NAME:
            return f"the certificate is for another name than {host}: is the url right?"
        if code in _UNKNOWN and self.path is not None:
            return (
                f"the certificate of {host} is signed by an authority that is not in "
                f"{self.source}={shown(self.path)}: add it there, or name another file as ca_file=…"
            )
        if code in _UNKNOWN:
            return (
                f"the certificate of {host} is signed by an authority that is not known here: pass "
                "ca_file=…, or set SSL_CERT_FILE, to the file with that authority's certificate"
            )
        return f"the certificate of {host} was refused ({error.verify_message})"


def check_ca_file(value: object) -> str | None:
    """Return the path that a user gave as ``ca_file``; an error where it cannot be used."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"ca_file must be the path of a file, not {type(value).__name__}")
    path = os.path.abspath(os.fsdecode(os.path.expanduser(value)))
    if os.path.isdir(path):
        raise ValueError(f"ca_file={shown(path)} is a folder; it takes the path of a file")
    Authorities(path, "ca_file").context()
    return path

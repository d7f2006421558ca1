"""Run DTLS (the server's side) and derive SRTP keys, on pyOpenSSL and pylibsrtp.

The state machine has no I/O of its own: datagrams go in through :meth:`Dtls.feed`, come
out through the ``send`` callable, and only the retransmission timer needs the loop. One
handshake costs about a millisecond of elliptic-curve arithmetic, so it may run on the loop.

Sources: RFC 5764 (DTLS-SRTP), RFC 6347 (DTLS 1.2), RFC 8122 (fingerprints).
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from metered_sync.wire.sdp import Fingerprint

__all__ = ["Dtls", "DtlsIdentity"]

_DTLS_1_2 = 0xFEFD
_MTU = 1200
"""Bytes of a DTLS datagram: what WebRTC's own stacks allow themselves."""
HANDSHAKE_TIMEOUT = 30.0
"""Seconds that a handshake may take; OpenSSL repeats its flights for minutes."""
_RECORD_HEADER_SIZE = 13
_REPLAY_WINDOW = 1024
"""Packets; a retransmission may come that late, as the cache for NACKs is as long."""
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256,
    "sha-384": hashes.SHA384,
    "sha-512": hashes.SHA512,
}


@dataclass(frozen=True)
class _Profile:
    """An SRTP protection profile: its name in OpenSSL, in libsrtp, and its sizes in bytes."""

    name: bytes
    number: int
    key: int
    salt: int


# AES-GCM first: half the cost of AES-CM with HMAC on processors of today.
_PROFILES = (
    _Profile(b"SRTP_AEAD_AES_128_GCM", pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    _Profile(b"SRTP_AES128_CM_SHA1_80", pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
)


def _available_profiles() -> tuple[_Profile, ...]:
    result = []
    for profile in _PROFILES:
        try:
            pylibsrtp.Policy(srtp_profile=profile.number)
        except pylibsrtp.Error:
            continue  # libsrtp was built without AES-GCM.
        result.append(profile)
    return tuple(result)


class DtlsIdentity:
    """The certificate of an SFU, which all its clients see; made anew for each process."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = Fingerprint("sha-256", _digest(certificate, "sha-256"))
        self.profiles = _available_profiles()
        context = SSL.Context(SSL.DTLS_METHOD)
        # The record split in `_datagrams` knows the header of DTLS 1.2.
        context.set_max_proto_version(_DTLS_1_2)
        context.set_options(SSL.OP_NO_TICKET)
        # Any certificate may come: the fingerprint in the SDP is what vouches for it.
        verify = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(verify, lambda *_: True)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_tlsext_use_srtp(b":".join(profile.name for profile in self.profiles))
        self.context = context


class Dtls:
    """One DTLS association with a client, and the SRTP keys that come out of it."""

    def __init__(
        self,
        identity: DtlsIdentity,
        fingerprints: tuple[Fingerprint, ...],
        send: Callable[[bytes], None],
        on_timeout: Callable[[Dtls], None] = lambda _: None,
    ) -> None:
        self._identity = identity
        self._fingerprints = fingerprints
        self._send = send
        self._on_timeout = on_timeout
        """Called when the state has changed though no datagram came."""
        self._timer: asyncio.TimerHandle | None = None
        self._began = asyncio.get_running_loop().time()
        self._ssl = SSL.Connection(identity.context, None)
        self._ssl.set_accept_state()
        self._ssl.set_ciphertext_mtu(_MTU)
        self.state = "connecting"
        """``"connecting"``, ``"connected"``, ``"failed"`` or ``"closed"``."""
        self.problem = ""
        """Why it has failed."""
        self.rx: pylibsrtp.Session | None = None
        self.tx: pylibsrtp.Session | None = None

    def feed(self, datagram: bytes) -> None:
        """Take a DTLS datagram; :attr:`state` may have changed afterwards."""
        if self.state not in ("connecting", "connected"):
            return
        self._ssl.bio_write(datagram)
        if self.state == "connecting":
            self._shake()
        else:
            self._read()
        self._flush()

    def close(self) -> None:
        """Tell the client good-bye, if it is there, and stop the timer."""
        self._cancel_timer()
        if self.state == "connected":
            try:
                self._ssl.shutdown()
            except SSL.Error:
                pass  # It is gone already; nobody is left to tell.
            self._flush()
        self.state = "closed"

    def _shake(self) -> None:
        self._cancel_timer()
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._arm_timer()
        except SSL.Error as error:
            self._fail(_words(error))
        else:
            if not self._is_expected_peer():
                self._fail("the client's certificate has not the fingerprint of its description")
            elif not self._set_keys():
                self._fail("the client knows none of our SRTP protection profiles")
            else:
                self.state = "connected"

    def _fail(self, problem: str) -> None:
        self.state, self.problem = "failed", problem

    def _read(self) -> None:
        """Discard application data (SCTP is not spoken here) and notice the good-bye."""
        for _ in range(16):  # More records than one datagram can hold of any use.
            try:
                self._ssl.recv(65536)
            except SSL.ZeroReturnError:
                self.state = "closed"
                return
            except SSL.Error:
                return

    def _is_expected_peer(self) -> bool:
        """Compare the certificate with every fingerprint whose hash is known here."""
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        known = [item for item in self._fingerprints if item.algorithm in _HASHES]
        if certificate is None or not known:
            return False
        return all(item.value == _digest(certificate, item.algorithm) for item in known)

    def _set_keys(self) -> bool:
        """Derive the SRTP keys; the client's come first (RFC 5764, section 4.2)."""
        name = self._ssl.get_selected_srtp_profile()
        profile = next((item for item in self._identity.profiles if item.name == name), None)
        if profile is None:
            return False
        key, salt = profile.key, profile.salt
        secret = self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
        salts = secret[2 * key :]
        policy = pylibsrtp.Policy
        self.rx = _srtp(profile, secret[:key] + salts[:salt], policy.SSRC_ANY_INBOUND)
        self.tx = _srtp(profile, secret[key : 2 * key] + salts[salt:], policy.SSRC_ANY_OUTBOUND)
        return True

    # --- timer and output ---

    def _arm_timer(self) -> None:
        delay = self._ssl.DTLSv1_get_timeout()
        if delay is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        waited = asyncio.get_running_loop().time() - self._began
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._fail(_words(error) or f"the client has not answered for {waited:.0f} s")
        else:
            if waited > HANDSHAKE_TIMEOUT:
                self._fail(f"the client has not answered for {waited:.0f} s")
        if self.state == "failed":
            self._on_timeout(self)
            return
        self._flush()
        self._arm_timer()

    def _flush(self) -> None:
        try:
            data = self._ssl.bio_read(65536)
        except SSL.WantReadError:
            return
        for datagram in _datagrams(data):
            self._send(datagram)


def _words(error: SSL.Error) -> str:
    """Return OpenSSL's reasons; it has none where time has run out."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(reason[-1]) for reason in reasons)


def _datagrams(data: bytes) -> Iterator[bytes]:
    """Cut OpenSSL's output into datagrams between records, as a memory BIO joins them."""
    start = end = 0
    while end + _RECORD_HEADER_SIZE <= len(data):
        size = _RECORD_HEADER_SIZE + int.from_bytes(data[end + 11 : end + 13], "big")
        if end > start and end + size - start > _MTU:
            yield data[start:end]
            start = end
        end += size
    if start < len(data):
        yield data[start:]


def _srtp(profile: _Profile, key: bytes, direction: int) -> pylibsrtp.Session:
    policy = pylibsrtp.Policy(key=key, ssrc_type=direction, srtp_profile=profile.number)
    policy.allow_repeat_tx = True  # A NACK is answered with the same sequence number.
    policy.window_size = _REPLAY_WINDOW
    return pylibsrtp.Session(policy)


def _digest(certificate: x509.Certificate, algorithm: str) -> str:
    return certificate.fingerprint(_HASHES[algorithm]()).hex(":").upper()

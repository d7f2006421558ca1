"""Read connectivity checks and write their answers: the STUN that an ICE-lite agent needs.

Pure functions over bytes. Written out here, in some 100 lines, because ``aioice.stun``
is undocumented and its integrity check changed between the versions that are admitted.

Sources: RFC 8489 (STUN), RFC 8445 (ICE; section 2.5 and 6.1.1 for lite agents).
"""

from __future__ import annotations

import binascii
import hmac
import ipaddress
import struct
from dataclasses import dataclass, field

__all__ = ["ROLE_CONFLICT", "Check", "failure", "is_authentic", "parse_check", "success"]

_STUN_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE_HEAD = struct.Struct("!HH")
_COOKIE = 0x2112A442
_BINDING_REQUEST = 0x0001
_BINDING_SUCCESS = 0x0101
_BINDING_ERROR = 0x0111

_USERNAME = 0x0006
_MESSAGE_INTEGRITY = 0x0008
_ERROR_CODE = 0x0009
_XOR_MAPPED_ADDRESS = 0x0020
_USE_CANDIDATE = 0x0025
_FINGERPRINT = 0x8028
_ICE_CONTROLLED = 0x8029

_INTEGRITY_SIZE = 24
_FINGERPRINT_SIZE = 8
_FINGERPRINT_XOR = 0x5354554E

ROLE_CONFLICT = (487, "Role Conflict")
"""The answer to a client that takes itself for controlled: a lite agent always is."""


@dataclass(frozen=True)
class Check:
    """A binding request: one connectivity check or consent check of a client."""

    transaction: bytes
    username: str
    """``"<receiver's ufrag>:<sender's ufrag>"``."""
    nominated: bool
    """Whether the client selects this path (``USE-CANDIDATE``)."""
    controlled: bool
    """Whether the client takes the controlled role."""
    signed: bytes = field(repr=False)
    """What the message integrity covers, with its length already adjusted."""
    integrity: bytes = field(repr=False)


def parse_check(data: bytes) -> Check | None:
    """Read a datagram; `None` unless it is a well-formed binding request with integrity."""
    if len(data) < _STUN_HEADER.size:
        return None
    kind, length, cookie, transaction = _STUN_HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or cookie != _COOKIE or _STUN_HEADER.size + length != len(data):
        return None
    username = b""
    integrity = signed = b""
    nominated = controlled = False
    position = _STUN_HEADER.size
    while position + _ATTRIBUTE_HEAD.size <= len(data):
        attribute, size = _ATTRIBUTE_HEAD.unpack_from(data, position)
        value = data[position + 4 : position + 4 + size]
        if len(value) != size:
            return None
        if attribute == _FINGERPRINT:
            if value != _fingerprint(data[:position]):
                return None
        elif integrity:
            pass  # Nothing after the integrity is covered by it (RFC 8489, section 14.5).
        elif attribute == _USERNAME:
            username = value
        elif attribute == _USE_CANDIDATE:
            nominated = True
        elif attribute == _ICE_CONTROLLED:
            controlled = True
        elif attribute == _MESSAGE_INTEGRITY:
            integrity, signed = value, _with_length(data[:position], _INTEGRITY_SIZE)
        position += 4 + (size + 3) // 4 * 4
    if not integrity or not username:
        return None
    name = username.decode("utf-8", "replace")
    return Check(transaction, name, nominated, controlled, signed, integrity)


def is_authentic(check: Check, password: str) -> bool:
    """Return whether *check* was made with this ICE password."""
    return hmac.compare_digest(check.integrity, _sign(check.signed, password))


def success(check: Check, address: tuple[str, int], password: str) -> bytes:
    """Answer *check*, which came from *address*."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    mask = struct.pack("!I", _COOKIE) + check.transaction
    host = bytes(a ^ b for a, b in zip(ip.packed, mask, strict=False))
    family = 1 if ip.version == 4 else 2
    value = struct.pack("!BBH", 0, family, address[1] ^ (_COOKIE >> 16)) + host
    return _message(_BINDING_SUCCESS, check, _XOR_MAPPED_ADDRESS, value, password)


def failure(check: Check, error: tuple[int, str], password: str) -> bytes:
    """Refuse *check* with an error code."""
    code, reason = error
    value = struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()
    return _message(_BINDING_ERROR, check, _ERROR_CODE, value, password)


def _message(kind: int, check: Check, attribute: int, value: bytes, password: str) -> bytes:
    body = _ATTRIBUTE_HEAD.pack(attribute, len(value)) + value + bytes(-len(value) % 4)
    data = _STUN_HEADER.pack(kind, len(body), _COOKIE, check.transaction) + body
    digest = _sign(_with_length(data, _INTEGRITY_SIZE), password)
    data += _ATTRIBUTE_HEAD.pack(_MESSAGE_INTEGRITY, len(digest)) + digest
    data += _ATTRIBUTE_HEAD.pack(_FINGERPRINT, 4) + _fingerprint(data)
    return _with_length(data, 0)


def _with_length(data: bytes, extra: int) -> bytes:
    """Set the header's length to what follows it plus *extra* bytes still to come."""
    length = len(data) - _STUN_HEADER.size + extra
    return data[:2] + struct.pack("!H", length) + data[4:]


def _sign(data: bytes, password: str) -> bytes:
    return hmac.digest(password.encode(), data, "sha1")


def _fingerprint(data: bytes) -> bytes:
    crc = binascii.crc32(_with_length(data, _FINGERPRINT_SIZE)) ^ _FINGERPRINT_XOR
    return struct.pack("!I", crc)

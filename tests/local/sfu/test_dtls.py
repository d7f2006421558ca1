"""Test the server's DTLS against OpenSSL's client, datagram by datagram."""

from __future__ import annotations

import asyncio

import pylibsrtp
import pytest
from OpenSSL import SSL

from metered_sync.local.sfu import dtls as dtls_module
from metered_sync.local.sfu.dtls import Dtls, DtlsIdentity, _datagrams
from metered_sync.wire.sdp import Fingerprint

PACKET = b"\x80\x60\x00\x01\x00\x00\x00\x01\x00\x00\x00\x07payload"


class Client:
    """OpenSSL's side of an association, with a certificate of its own."""

    def __init__(self) -> None:
        self.identity = DtlsIdentity()
        context = self.identity.context
        self.ssl = SSL.Connection(context, None)
        self.ssl.set_connect_state()
        self.ssl.set_ciphertext_mtu(1200)

    def step(self) -> bytes:
        """Go on with the handshake; return what it sends."""
        try:
            self.ssl.do_handshake()
        except SSL.WantReadError:
            pass
        return self.sent()

    def sent(self) -> bytes:
        try:
            return self.ssl.bio_read(65536)
        except SSL.WantReadError:
            return b""


def shake(dtls: Dtls, client: Client, sent: list[bytes]) -> None:
    """Exchange datagrams until neither side has more to say."""
    for _ in range(10):
        for datagram in _datagrams(client.step()):
            dtls.feed(datagram)
        for datagram in sent:
            client.ssl.bio_write(datagram)
        if not sent and dtls.state != "connecting":
            return
        sent.clear()


def association(*fingerprints: Fingerprint) -> tuple[Dtls, Client, list[bytes]]:
    sent: list[bytes] = []
    client = Client()
    return (
        Dtls(DtlsIdentity(), fingerprints or (client.identity.fingerprint,), sent.append),
        client,
        sent,
    )


def test_a_handshake_gives_both_sides_the_same_keys() -> None:
    async def main() -> None:
        dtls, client, sent = association()
        shake(dtls, client, sent)
        assert dtls.state == "connected"
        name = client.ssl.get_selected_srtp_profile()
        profile = next(item for item in dtls._identity.profiles if item.name == name)
        size = 2 * (profile.key + profile.salt)
        secret = client.ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", size)
        salts = secret[2 * profile.key :]
        key = secret[: profile.key] + salts[: profile.salt]
        policy = pylibsrtp.Policy(
            key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile.number
        )
        assert dtls.rx is not None
        assert dtls.rx.unprotect(pylibsrtp.Session(policy).protect(PACKET)) == PACKET
        dtls.close()

    asyncio.run(main())


@pytest.mark.parametrize("fingerprint", [Fingerprint("sha-256", "00:11"), Fingerprint("md5", "00")])
def test_another_certificate_than_the_description_named(fingerprint: Fingerprint) -> None:
    async def main() -> None:
        dtls, client, sent = association(fingerprint)
        shake(dtls, client, sent)
        assert dtls.state == "failed"
        assert dtls.rx is dtls.tx is None
        dtls.feed(b"\x16" * 20)  # nothing more is listened to
        assert dtls.state == "failed"

    asyncio.run(main())


def test_goodbyes() -> None:
    async def main() -> None:
        dtls, client, sent = association()
        shake(dtls, client, sent)
        client.ssl.shutdown()
        dtls.feed(client.sent())
        assert dtls.state == "closed"
        dtls, client, sent = association()
        shake(dtls, client, sent)
        dtls.close()
        assert dtls.state == "closed"
        client.ssl.bio_write(b"".join(sent))
        with pytest.raises(SSL.ZeroReturnError):
            client.ssl.recv(100)

    asyncio.run(main())


def test_what_is_no_dtls_changes_nothing() -> None:
    async def main() -> None:
        dtls, client, sent = association()
        dtls.feed(b"\x16\xfe\xff" + bytes(40))
        shake(dtls, client, sent)
        assert dtls.state == "connected"
        dtls.feed(b"\x17" + bytes(100))
        assert dtls.state == "connected"
        dtls.close()

    asyncio.run(main())


def test_a_lost_flight_is_sent_again() -> None:
    async def main() -> None:
        dtls, client, sent = association()
        dtls.feed(client.step())
        hello = list(sent)
        assert hello
        sent.clear()
        for _ in range(300):  # OpenSSL's first timeout is a second
            if sent:
                break
            await asyncio.sleep(0.01)
        assert sent
        shake(dtls, client, sent)
        assert dtls.state == "connected"
        dtls.close()

    asyncio.run(main())


def record(size: int) -> bytes:
    return b"\x16" + bytes(10) + (size - 13).to_bytes(2, "big") + bytes(size - 13)


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], []),
        ([100], [100]),
        ([600, 600], [1200]),
        ([600, 601], [600, 601]),
        ([100, 200, 1000, 50, 1200], [300, 1050, 1200]),
        ([1300, 20], [1300, 20]),
    ],
)
def test_output_is_cut_between_records(sizes: list[int], cut: list[int]) -> None:
    data = b"".join(map(record, sizes))
    datagrams = list(_datagrams(data))
    assert [len(datagram) for datagram in datagrams] == cut
    assert b"".join(datagrams) == data


# --- failures ---


def failing(*fingerprints: Fingerprint) -> tuple[Dtls, Client, list[bytes], list[Dtls]]:
    told: list[Dtls] = []
    sent: list[bytes] = []
    client = Client()
    prints = fingerprints or (client.identity.fingerprint,)
    return Dtls(DtlsIdentity(), prints, sent.append, told.append), client, sent, told


def test_a_handshake_that_fails_says_why() -> None:
    async def run() -> None:
        dtls, client, sent, _ = failing(Fingerprint("sha-256", "00:11"))
        shake(dtls, client, sent)
        assert dtls.state == "failed"
        assert "fingerprint" in dtls.problem
        dtls, client, sent, _ = failing()
        client.ssl = SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None)  # without a certificate
        client.ssl.set_connect_state()
        client.ssl.set_ciphertext_mtu(1200)
        with pytest.raises(SSL.Error):
            shake(dtls, client, sent)
        assert dtls.state == "failed"
        assert dtls.problem != ""

    asyncio.run(run())


def test_a_failure_by_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        dtls, client, _, told = failing()
        for datagram in _datagrams(client.step()):
            dtls.feed(datagram)
        assert (dtls.state, told) == ("connecting", [])
        ended = asyncio.get_running_loop().time() + 20
        while not told and asyncio.get_running_loop().time() < ended:
            await asyncio.sleep(0.02)  # (OpenSSL's first timeout is a second)
        assert told == [dtls]
        assert dtls.state == "failed"
        assert "has not answered for" in dtls.problem

    monkeypatch.setattr(dtls_module, "HANDSHAKE_TIMEOUT", 0.1)
    asyncio.run(run())

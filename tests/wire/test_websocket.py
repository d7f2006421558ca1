"""Read the frames that we build with the library's parser."""

from __future__ import annotations

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from metered_sync.wire.websocket import masked_text_frame, text_head

SIZES = [0, 1, 125, 126, 65535, 65536, 200_000]


def text_of(size: int) -> bytes:
    return b"\xc3\xa9" * (size // 2) + b"x" * (size % 2)


@pytest.mark.parametrize("size", SIZES)
def test_a_clients_frame_is_read_by_a_server(size: int) -> None:
    payload = text_of(size)
    server = Protocol(SERVER)
    server.receive_data(masked_text_frame(payload) + masked_text_frame(b"next"))
    first, second = server.events_received()
    assert (first.opcode, first.fin, bytes(first.data)) == (Opcode.TEXT, True, payload)
    assert bytes(second.data) == b"next"


@pytest.mark.parametrize("size", SIZES)
def test_a_servers_frame_is_read_by_a_client(size: int) -> None:
    payload = text_of(size)
    client = Protocol(CLIENT)
    client.receive_data(text_head(size) + payload + text_head(4) + b"next")
    first, second = client.events_received()
    assert (first.opcode, first.fin, bytes(first.data)) == (Opcode.TEXT, True, payload)
    assert bytes(second.data) == b"next"


def test_each_frame_has_a_mask_of_its_own() -> None:
    assert masked_text_frame(b"x" * 20) != masked_text_frame(b"x" * 20)

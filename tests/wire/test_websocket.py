"""Read the frames that we build with the library's parser."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from metered_sync.wire.websocket import masked_text_frame, text_head
from tests.conftest import run_script

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


def masks(count: int) -> list[bytes]:
    return [masked_text_frame(b"x" * 20)[2:6] for _ in range(count)]


def test_each_frame_has_a_mask_of_its_own() -> None:
    # (Of four bytes each: a few may be equal by chance, once in some hundred runs.)
    with ThreadPoolExecutor(4) as pool:
        made = [mask for some in pool.map(masks, [1500] * 4) for mask in some]
    assert len(set(made)) > len(made) - 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_masks_of_its_own() -> None:
    code = (
        "import os, sys\n"
        "import metered_sync.engine.messaging.request\n"
        "from metered_sync.wire.websocket import masked_text_frame\n"
        "made = [masked_text_frame(b'x' * 20)[2:6].hex()]\n"
        "pid = os.fork()\n"
        "made += [masked_text_frame(b'x' * 20)[2:6].hex() for _ in range(20)]\n"
        "if pid: os.waitpid(pid, 0)\n"
        "print(*made[1:], flush=True)\n"
    )
    done = run_script(code)
    of_child, of_parent = (line.split() for line in done.stdout.splitlines())
    assert len(of_child) == len(of_parent) == 20
    assert len(set(of_child) & set(of_parent)) < 3

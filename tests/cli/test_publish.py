"""Test publish: one message, lines of standard input, refusals, Ctrl-C, the service's pace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from metered_sync import Direct, SignallingClient
from metered_sync.local import LocalCloud
from tests.support.command_line import Outcome, call, on_terminal, running


@pytest.mark.parametrize(
    ("args", "data"),
    [
        (['{"a": [1, null]}'], {"a": [1, None]}),
        (["--text", "hello world"], "hello world"),
        (["--text", ""], ""),
        (["null"], None),
        (["--", "-5"], -5),
        (['"ü\\ud83d\\ude00"'], "ü😀"),
    ],
)
def test_a_message_arrives(dev: LocalCloud, args: list[str], data: object) -> None:
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("publish/one")
        done = call("publish", "--local", "publish/one", *args)
        assert done == Outcome(0, "", "")
        assert inbox.get(timeout=30).data == data


def test_a_message_to_one_peer(dev: LocalCloud) -> None:
    options = dev.token_options("publish-bob")
    with SignallingClient(**options) as client, client.events(Direct) as inbox:
        assert call("publish", "--local", "--to", "publish-bob", "[1]").status == 0
        assert inbox.get(timeout=30).data == [1]
        done = call("publish", "--local", "--to", "publish-bob", "--json", stdin=b"2\n3\n")
        assert (done.status, done.json) == (0, [{"published": 2}])
        assert [inbox.get(timeout=30).data for _ in range(2)] == [2, 3]
    absent = call("publish", "--local", "--to", "publish-nobody", "1")
    assert absent.status in (0, 1)  # the service need not tell
    assert "Traceback" not in absent.err


def test_lines_arrive_in_order_and_bad_ones_are_told_of(dev: LocalCloud) -> None:
    big = json.dumps("x" * 70_000)
    bad_nesting = "[" * 100_000
    lines = ["\ufeff1", "", '{"b": 2}\r', "no json", big, bad_nesting, "NaN", "3"]
    data = "\n".join(lines).encode() + b"\n\xff\n" + b"9" * ((1 << 20) + 9) + b"\n4"
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("publish/lines")
        done = call("publish", "--local", "publish/lines", "-", "--json", stdin=data)
        assert [inbox.get(timeout=30).data for _ in range(4)] == [1, {"b": 2}, 3, 4]
        assert len(inbox) == 0
    assert (done.status, done.json) == (1, [{"published": 4}])
    told = done.err.splitlines()
    assert [line.partition(":")[0] for line in told] == [
        f"line {number}" for number in (4, 5, 6, 7, 9, 10)
    ]
    assert "not JSON" in told[0]
    assert "65536" in told[1]
    assert "longer than" in told[5]


def test_text_lines_are_strings(dev: LocalCloud) -> None:
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("publish/text")
        done = call(
            "publish", "--local", "publish/text", "--text", stdin=b'1\n\n{"a"\n\xff\n\xc3\xbc'
        )
        assert [inbox.get(timeout=30).data for _ in range(4)] == ["1", "", '{"a"', "ü"]
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("line 4: is no text")


def test_many_bad_lines_are_only_counted(dev: LocalCloud) -> None:
    done = call("publish", "--local", "publish/bad", stdin=b"x\n" * 1000)
    assert done.status == 1
    assert len(done.err.splitlines()) == 21
    assert "1000 lines" in done.err


def test_empty_input_publishes_nothing(dev: LocalCloud) -> None:
    done = call("publish", "--local", "publish/none", "--json")
    assert (done.status, done.json, done.err) == (0, [{"published": 0}], "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Missing argument 'CHANNEL'"),
        (["c", "hello"], "--text 'hello'"),
        (["c", "1", "2"], "unexpected extra argument"),
        (["a*", "1"], "is a pattern"),
        (["", "1"], "must not be empty"),
        (["c\n", "1"], "control character"),
        (["x" * 257, "1"], "the limit is 256"),
        (["--to", "é", "1"], "printable ASCII"),
        (["--to", "bob", "c", "1"], "there is no CHANNEL"),
        (["c", "1", "--rate", "-1"], "--rate"),
        (["c", "\udcff"], "is not JSON"),
    ],
)
def test_misuse(dev: LocalCloud, args: list[str], words: str) -> None:
    done = call("publish", "--local", *args)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_refusals_are_one_line(dev: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    token = call("token", "--local", "--peer-id", "a", "--permission", "subscribe").out.strip()
    refused = call("publish", "--local", "--token", token, "c", "1")
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    lines = call("publish", "--local", "--token", token, "c", stdin=b"1\n2\n")
    assert lines.status == 1
    assert [line[:7] for line in lines.err.splitlines()] == ["line 1:", "line 2:"]
    for done in (refused, lines):
        assert token not in done.err
    big = call("publish", "--local", "c", json.dumps("x" * 70_000))
    assert (big.status, big.err.count("\n")) == (1, 1)
    unknown = call("publish", "--local", "--key", "pk_live_unknown", "c", "1")
    assert (unknown.status, unknown.err.count("\n")) == (1, 1)


def test_the_service_s_pace_holds_unless_said_otherwise(cloud: LocalCloud) -> None:
    """A burst is beyond what the service takes: it would close the connection (4011)."""
    to = ["--key", cloud.publishable_key, "--url", cloud.url]
    with SignallingClient(**cloud.client_options()) as client:
        inbox = client.subscribe("pace")
        done = call("publish", *to, "pace", stdin=b"1\n" * 220)
        assert (done.status, done.err) == (0, "")
        assert sum(inbox.get(timeout=30).data for _ in range(220)) == 220
    flooding = call("publish", *to, "pace", "--rate", "0", stdin=b"1\n" * 2000)
    assert flooding.status == 1
    assert "4011" in flooding.err
    assert re.search(r"\d+ lines were (not published|read and not acknowledged)", flooding.err)


def test_thousands_of_lines_go_through_both_pipes(dev: LocalCloud) -> None:
    """Each of 3,000 messages, as fast as it goes, through publish, the cloud and listen."""
    number = 3000
    with running("listen", "--local", "flood", "--data", "-n", str(number)) as listener:
        assert listener.stderr is not None
        assert "listening" in listener.stderr.readline()
        lines = "".join(f"{i}\n" for i in range(number)).encode()
        done = call("publish", "--local", "flood", "--rate", "0", "--json", stdin=lines)
        assert (done.status, done.json) == (0, [{"published": number}])
        out, err = listener.communicate(timeout=60)
        assert (listener.returncode, err) == (0, "")
        assert out.encode() == lines


def test_ctrl_c_ends_a_publish_that_waits_for_lines(dev: LocalCloud) -> None:
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("publish/interrupted")
        with running("publish", "--local", "publish/interrupted") as process:
            assert process.stdin is not None
            process.stdin.write("1\n")
            process.stdin.flush()
            assert inbox.get(timeout=60).data == 1
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr is not None
            assert process.stderr.read() == ""


def test_ctrl_c_ends_a_wait_for_lines_whichever_thread_the_system_tells() -> None:
    source = """
import signal, sys, threading
from metered_sync.cli.arguments import input_lines
def tell():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
try:
    for number, line in input_lines():
        print(number, line, flush=True)
        threading.Timer(0.3, tell).start()
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", source]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write("one\ntwo")
            process.stdin.flush()
            assert process.wait(60) == 0
            assert process.stdout is not None
            assert process.stdout.read() == "1 b'one'\ninterrupted\n"
        finally:
            process.kill()


def test_somebody_types_lines(dev: LocalCloud) -> None:
    with SignallingClient(**dev.client_options()) as client:
        inbox = client.subscribe("publish/typed")
        with on_terminal("publish", "--local", "publish/typed", "--text") as terminal:
            terminal.read_until("Ctrl-D ends it")
            terminal.type(b"hello\n")
            assert inbox.get(timeout=20).data == "hello"
            terminal.type(b"\x04")
            terminal.read_until(None)
            assert terminal.process.wait(60) == 0

"""Rules 4 and 7 in servers: gunicorn with forked workers, Django's async views."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from metered_sync import SignallingClient
from tests.conftest import run_script, wait_until
from tests.support.webservers import gunicorn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

APP = """
import os, threading
from flask import Flask, jsonify, request
from metered_sync import ForkedError, SignallingClient

app = Flask(__name__)
lock = threading.Lock()
client = None
made_before_the_fork = SignallingClient()    # the mistake to be told of, not to hang on

def get_client():
    "One client per worker, opened on first use."
    global client
    with lock:
        if client is None:
            client = SignallingClient()
            client.connect()
        return client

@app.post("/publish/<channel>")
def publish(channel):
    get_client().publish(channel, request.get_json())
    return jsonify(worker=os.getpid(), peer=get_client().peer_id)

@app.get("/mistake")
def mistake():
    try:
        made_before_the_fork.connect()
    except ForkedError as error:
        return str(error), 500
    return "no error"
"""


GREEN_APP = """
import threading
from flask import Flask, jsonify, request
from metered_sync import Message, SignallingClient

app = Flask(__name__)
lock = threading.Lock()
client = None
heard = []

def get_client():
    global client
    with lock:
        if client is None:
            client = SignallingClient()
            client.connect()
            client.on(Message, lambda message: heard.append(message.data))
            client.subscribe("to-green")
        return client

@app.post("/publish/<channel>")
def publish(channel):
    get_client().publish(channel, request.get_json())
    return jsonify(heard=heard)
"""


@pytest.fixture
def environment(served_cloud: dict[str, str]) -> dict[str, str]:
    return {"METERED_URL": served_cloud["url"], "METERED_KEY": served_cloud["publishable_key"]}


@pytest.mark.parametrize(
    "options",
    [("--workers", "3", "--preload"), ("--workers", "2", "--threads", "4"), ("--workers", "2")],
    ids=["preload", "threads", "sync"],
)
def test_gunicorn(tmp_path: Path, environment: dict[str, str], options: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text(APP)
    workers, peers = set(), set()
    with (
        SignallingClient(
            url=environment["METERED_URL"], api_key=environment["METERED_KEY"]
        ) as listener,
        gunicorn(tmp_path, "app:app", environment, tmp_path / "log", *options) as url,
    ):
        inbox = listener.subscribe("from-gunicorn")

        def ask(number: int) -> None:
            answer = requests.post(f"{url}/publish/from-gunicorn", json=number, timeout=20)
            assert answer.status_code == 200
            workers.add(answer.json()["worker"])
            peers.add(answer.json()["peer"])
            assert inbox.get(timeout=20).data == number

        for number in range(60):
            ask(number)
            if len(workers) > 1 and number > 20:
                break
        assert len(peers) == len(workers) >= 1  # each worker has a client of its own
        if "--preload" in options:
            told = requests.get(f"{url}/mistake", timeout=20)
            assert told.status_code == 500
            assert "os.fork()" in told.text


def test_an_async_view_of_django(environment: dict[str, str]) -> None:
    source = """
import asyncio, warnings
import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
django.setup()
from metered_sync import SignallingClient

async def view(request):
    # A mistake, for it holds up the loop; but it works, and it is told.
    with SignallingClient() as one, SignallingClient() as two:
        inbox = one.subscribe("django")
        two.publish("django", 7)
        return JsonResponse({"data": inbox.get(timeout=20).data})

urlpatterns = [path("", view)]

from django.test import AsyncClient
async def main():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = await AsyncClient().get("/")
    print(answer.json(), sum(w.category is RuntimeWarning for w in caught))
asyncio.run(main())
"""
    done = run_script(source, **environment)
    assert (done.returncode, done.stdout) == (0, "{'data': 7} 1\n"), done.stderr


def test_gunicorn_with_gevent(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "app.py").write_text(GREEN_APP)
    options = ("--worker-class", "gevent", "--timeout", "10")
    with (
        SignallingClient(
            url=environment["METERED_URL"], api_key=environment["METERED_KEY"]
        ) as other,
        gunicorn(tmp_path, "app:app", environment, tmp_path / "log", *options) as url,
        ThreadPoolExecutor(5) as pool,
    ):
        inbox = other.subscribe("from-green")

        def ask(number: int) -> list[int]:
            answer = requests.post(f"{url}/publish/from-green", json=number, timeout=20)
            assert answer.status_code == 200
            heard: list[int] = answer.json()["heard"]
            return heard

        list(pool.map(ask, range(20)))
        assert sorted(inbox.get(timeout=20).data for _ in range(20)) == list(range(20))
        other.publish("to-green", 1)
        wait_until(lambda: 1 in ask(0))


def test_eventlet(environment: dict[str, str]) -> None:
    source = """
import eventlet
eventlet.monkey_patch()
import warnings
warnings.simplefilter("error", RuntimeWarning)
from metered_sync import Message, SignallingClient

beats, heard = [], []
def beat():
    while True:
        beats.append(1)
        eventlet.sleep(0.01)
eventlet.spawn(beat)
with SignallingClient() as one, SignallingClient() as two:
    inbox = two.subscribe("eventlet")
    two.on(Message, lambda message: heard.append(message.data))
    for number in range(20):
        eventlet.spawn(one.publish, "eventlet", number)
    assert sorted(inbox.get(timeout=20).data for _ in range(20)) == list(range(20))
    while len(heard) < 20:
        eventlet.sleep(0.01)
    count = len(beats)
    try:
        inbox.get(timeout=0.2)
    except TimeoutError:
        assert len(beats) > count  # others go on while one waits
        print("done")
"""
    done = run_script(source, **environment)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

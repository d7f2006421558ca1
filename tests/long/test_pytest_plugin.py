"""The pytest plug-in as a stranger gets it: installed from the wheel, beside other plug-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PACKAGES = ("django>=4.2", "pytest>=8", "pytest-asyncio", "pytest-django", "pytest-xdist>=3.6")
"""What the project below has besides the library."""

PROJECT = {
    "pytest.ini": """
[pytest]
DJANGO_SETTINGS_MODULE = settings
addopts = --strict-markers
""",
    "settings.py": """
SECRET_KEY = "for tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ROOT_URLCONF = "app"
ALLOWED_HOSTS = ["*"]
""",
    "app.py": """
from django.http import HttpResponse
from django.urls import path

from metered_sync import SignallingClient

clients = []


def ring(request):
    if not clients:  # one for the whole process
        clients.append(SignallingClient())
        clients[0].connect()
    clients[0].publish("bell", request.GET["text"], timeout=20)
    return HttpResponse("rung")


urlpatterns = [path("ring", ring)]
""",
    "test_django.py": """
import pytest
from django.contrib.auth.models import User


@pytest.mark.parametrize("text", ["ding", "dong", "again"])
def test_a_view(client, db, text, metered_env, local_cloud, metered_client):
    User.objects.create(username=text)
    house = metered_client("house").subscribe("bell")
    assert client.get("/ring", {"text": text}).content == b"rung"
    assert house.get(timeout=20).data == text
    assert [frame.data for frame in local_cloud.log if frame.type == "publish"] == [text]
""",
    "test_asyncio.py": """
import asyncio

import pytest


@pytest.mark.asyncio
async def test_in_a_thread(local_cloud, metered_client):
    beats = []

    async def beat():
        while True:
            beats.append(1)
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    ann = await asyncio.to_thread(metered_client, "ann")
    await asyncio.to_thread(ann.publish, "chat", 1)
    frame = await asyncio.to_thread(local_cloud.log.wait_for, "publish", peer="ann")
    beating.cancel()
    assert frame.data == 1
    assert len(beats) > 3


@pytest.mark.asyncio
@pytest.mark.metered(permissions=["subscribe"])
async def test_marked(local_cloud, metered_client):
    with pytest.raises(Exception, match="permission|permitted|Publish"):
        await asyncio.to_thread(metered_client("ann").publish, "chat", 1)
""",
    "test_media.py": """
from metered_sync.testing import PatternSource, read_number


def test_a_room(metered_peer):
    ann, bob = metered_peer("ann"), metered_peer("bob")
    ann.join("room")
    bob.join("room")
    with PatternSource(160, 120, fps=15) as camera:
        ann.add_track(camera.video)
        track = bob.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        assert read_number(track.read(timeout=20)) >= 0
""",
}


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, without this checkout on Python's path; return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_a_project_of_ones_own(tmp_path: Path) -> None:
    source, project = tmp_path / "source", tmp_path / "project"
    source.mkdir()
    project.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "metered_sync", source / "metered_sync")
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(tmp_path, *pip, "wheel", "--no-deps", "--wheel-dir", "wheels", str(source))
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    run(tmp_path, *pip, "install", f"{wheel}[webrtc,local]", *PACKAGES)
    for name, text in PROJECT.items():
        (project / name).write_text(text)
    pytest_ = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "6 passed" in run(project, *pytest_)
    assert "6 passed" in run(project, *pytest_, "-n", "2")
    leaks = run(project, *pytest_, "--metered-leaks", "test_asyncio.py", "test_media.py")
    assert "3 passed" in leaks
    assert "metered" in run(project, *pytest_, "--markers")
    assert "local_cloud" in run(project, *pytest_, "--fixtures")

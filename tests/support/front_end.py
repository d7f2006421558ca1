"""What a notebook's front end does, as far as previews see of it, against a real kernel."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from tests.conftest import ROOT

__all__ = ["FrontEnd", "front_end"]

VIEW = "application/vnd.jupyter.widget-view+json"
LINK = "DirectionalLinkModel"


class FrontEnd:
    """Runs cells, keeps what they display, and carries out links between widgets."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.has_widgets = True
        """Whether its kernel has ipywidgets."""
        self.answering = True
        """Whether links are carried out; what they should have told meanwhile is kept."""
        self.displays: dict[str, dict[str, Any]] = {}
        """What each output shows, by display id."""
        self.cells: dict[str, list[str]] = {}
        """The display ids of the outputs that each cell made, by the cell's request."""
        self.models: dict[str, dict[str, Any]] = {}
        """The state of each widget."""
        self.updates = 0
        """How often an output was replaced under its id, or a picture set in a widget."""
        self.seen: list[Any] = []
        """All that came."""
        self._owed: dict[str, int] = {}

    def run(self, source: str, cell_id: str = "", timeout: float = 60.0) -> str:
        """Run a cell and return what it printed; a failure fails the test."""
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
        message = self.client.session.msg(
            "execute_request", content, metadata={"cellId": cell_id} if cell_id else {}
        )
        self.client.shell_channel.send(message)
        mine, printed, deadline = message["header"]["msg_id"], "", time.monotonic() + timeout
        while True:
            if time.monotonic() > deadline:
                pytest.fail(f"the cell took too long: {source}")
            told = self.take(0.2)
            if told is None or told["parent_header"].get("msg_id") != mine:
                continue
            kind, content = told["msg_type"], told["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                pytest.fail("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return printed.strip()

    def until(self, condition: Callable[[], object], timeout: float = 20.0) -> None:
        """Take messages until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen within {timeout:g} s")
            self.take(0.1)

    def listen(self, seconds: float) -> None:
        """Take messages for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.take(left)

    def answer(self) -> None:
        """Carry out links from now on, and what they owe."""
        self.answering = True
        for target, value in self._owed.items():
            self._tell(target, value)
        self._owed.clear()

    def take(self, timeout: float) -> dict[str, Any] | None:
        """Take the next message and do what a front end does with it."""
        try:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=timeout)
        except Empty:
            return None
        self.seen.append(message)
        kind, content = message["msg_type"], message["content"]
        if kind in ("display_data", "update_display_data"):
            name = content["transient"].get("display_id", message["header"]["msg_id"])
            if kind == "display_data":
                self.cells.setdefault(message["parent_header"]["msg_id"], []).append(name)
            else:
                assert name in self.displays, "an output that nobody made is updated"
                self.updates += 1
            self.displays[name] = content["data"]
        elif kind == "comm_open":
            self.models[content["comm_id"]] = content["data"]["state"]
            self._follow(content["comm_id"], "value")
        elif kind == "comm_msg" and content["data"]["method"] == "update":
            state = content["data"]["state"]
            for path, buffer in zip(
                content["data"].get("buffer_paths", []), message["buffers"], strict=True
            ):
                state[path[0]] = bytes(buffer)
            self.updates += "value" in state and not isinstance(state["value"], int)
            self.models[content["comm_id"]].update(state)
            self._follow(content["comm_id"], *state)
        elif kind == "comm_close":
            del self.models[content["comm_id"]]
        return message

    def _follow(self, changed: str, *names: str) -> None:
        """Carry out the links from, or made with, a widget that has changed."""
        for comm_id, model in tuple(self.models.items()):
            if model["_model_name"] == LINK and "target" in model:
                (source, attribute), (target, _) = model["source"], model["target"]
                source = source.removeprefix("IPY_MODEL_")
                target = target.removeprefix("IPY_MODEL_")
                if comm_id == changed or (source == changed and attribute in names):
                    value = self.models[source][attribute]
                    if self.answering:
                        self._tell(target, value)
                    else:
                        self._owed[target] = value

    def _tell(self, target: str, value: int) -> None:
        data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
        message = self.client.session.msg("comm_msg", {"comm_id": target, "data": data})
        self.client.shell_channel.send(message)


@contextlib.contextmanager
def front_end(folder: Path, setup: str) -> Iterator[FrontEnd]:
    """Run a kernel, and a first cell in it."""
    manager = KernelManager(kernel_name="python3")
    manager.shutdown_wait_time = 30.0  # then it would be killed
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": str(ROOT)})
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        face = FrontEnd(client)
        face.run(setup)
        yield face
    finally:
        client.stop_channels()
        manager.shutdown_kernel()

"""Rule 4: an event loop that runs in the caller's thread is no obstacle."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from metered_sync import SignallingClient
from metered_sync.bridge import guard
from metered_sync.local import LocalCloud
from tests.conftest import run_script


def test_calls_work_under_asyncio_run(
    shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_warned", False)

    async def main() -> Any:
        options = shared_cloud.client_options()
        with SignallingClient(**options) as alice, SignallingClient(**options) as bob:
            inbox = alice.subscribe("loop")
            bob.publish("loop", 1)
            return inbox.get(timeout=20).data

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert asyncio.run(main()) == 1
    (warning,) = [w for w in caught if issubclass(w.category, RuntimeWarning)]
    assert "asyncio.to_thread" in str(warning.message)
    assert warning.filename == __file__  # it points at the caller, not at the library


def test_a_plain_script_is_warned_once_and_a_thread_never(shared_cloud: LocalCloud) -> None:
    source = """
import asyncio, sys
from metered_sync import SignallingClient
client = SignallingClient(url=sys.argv[1], api_key=sys.argv[2])
async def main():
    await asyncio.to_thread(client.connect)
    await asyncio.to_thread(client.publish, "x", 1)
    print("quiet so far", file=sys.stderr)
    for _ in range(3):
        client.publish("x", 1)
    client.close()
asyncio.run(main())
"""
    done = run_script(source, shared_cloud.url, shared_cloud.publishable_key)
    assert done.returncode == 0
    quiet, *rest = done.stderr.splitlines()
    assert quiet == "quiet so far"
    assert "\n".join(rest).count("RuntimeWarning") == 1
    assert "<string>:10:" in done.stderr  # the line that is meant


def test_a_jupyter_kernel(shared_cloud: LocalCloud) -> None:
    import nbclient
    import nbformat

    cells = [
        "from metered_sync import SignallingClient, Message\nimport threading",
        f"options = {shared_cloud.client_options()!r}\n"
        "a, b = SignallingClient(**options), SignallingClient(**options)\n"
        "a.connect(); b.connect()",
        "inbox = a.subscribe('nb')\nb.publish('nb', 42)\ninbox.get(timeout=20).data",
        "got = threading.Event()\na.on(Message, lambda m: got.set())\n"
        "b.publish('nb', 1)\ngot.wait(5)",
        "a.close(); b.close()\n(a.state, b.state)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert [o for cell in outputs for o in cell if o.output_type in ("stream", "error")] == []
    results = [cell[0]["data"]["text/plain"] for cell in outputs if cell]
    assert results == ["42", "True", "('closed', 'closed')"]

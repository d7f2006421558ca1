"""Run a local cloud until Ctrl-C: ``metered-sync serve``."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING

import click

from metered_sync.cli import output
from metered_sync.cli.dev_cloud import dev_cloud, dev_port

if TYPE_CHECKING:
    from metered_sync.local import LocalCloud

__all__ = ["command"]


@click.command("serve", short_help="Run a local cloud until Ctrl-C.")
@click.option("--port", type=int, help="The TCP port; a free one unless given.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--dev",
    is_flag=True,
    help="The same port and keys every time, where --local of the other commands finds them. "
    "(METERED_LOCAL_PORT: another port, for both.)",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--no-limits", is_flag=True, help="Lift the service's abuse limits.")
@click.option("--no-console", is_flag=True, help="Serve no pages that show it in a browser.")
@click.option("--open", "opened", is_flag=True, help="Open the console in the browser.")
@click.option(
    "--exit-with-stdin",
    is_flag=True,
    help="Stop when standard input ends, for programs that start this one.",
)
def command(
    port: int | None,
    host: str,
    dev: bool,
    as_json: bool,
    no_limits: bool,
    no_console: bool,
    opened: bool,
    exit_with_stdin: bool,
) -> None:
    """Run a messaging service and an SFU on this machine until Ctrl-C. Prints what clients need to
    connect, as lines for a shell, and the address of the console, which shows the cloud in a
    browser: whoever has it may look in."""
    from metered_sync.local import LocalCloud

    if opened and no_console:
        raise click.UsageError("--open opens the console, which --no-console leaves out")
    stop = threading.Event()
    if exit_with_stdin:

        def watch() -> None:
            sys.stdin.read()
            stop.set()

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    make = dev_cloud if dev else LocalCloud
    if port is None:
        port = dev_port() if dev else 0
    with make(host=host, port=port, limits=not no_limits, console=not no_console) as cloud:
        facts = _facts(cloud)
        if not no_console:
            facts["console_url"] = cloud.console_url
        if as_json:
            output.line(json.dumps(facts))
        else:
            for name, value in _environment(facts).items():
                output.line(f"export {name}={value}")
            for name in (name for name in facts if name.startswith("turn")):  # no client's default
                output.line(f"# {name}: {facts[name]}")
            if dev:
                output.line("# in other terminals, with nothing exported:")
                output.line("#   metered-sync listen --local demo")
                output.line("#   metered-sync publish --local demo '\"hello\"'")
            if not no_console:
                output.line(f"# console: {facts['console_url']}")
            output.line("# serving; Ctrl-C ends it")
        if opened:  # on a thread: a browser in the terminal would keep this one until its end
            url = facts["console_url"]
            threading.Thread(target=_open, args=(url,), name="browser", daemon=True).start()
        while not stop.wait(0.5):  # in slices: Windows sees Ctrl-C only between two waits
            pass


def _open(url: str) -> None:
    """Open a page in the user's browser, or say that there is none."""
    import webbrowser  # only for ``--open``

    if not webbrowser.open(url):
        output.talk(f"no browser can be opened from here: open {url}")


def _facts(cloud: LocalCloud) -> dict[str, str]:
    """Return what clients need, by the names of the cloud's attributes."""
    return {
        "url": cloud.url,
        "http_url": cloud.http_url,
        "publishable_key": cloud.publishable_key,
        "key_id": cloud.key_id,
        "key_secret": cloud.key_secret,
        "sfu_app_id": cloud.sfu_app_id,
        "sfu_secret": cloud.sfu_secret,
        "turn_app": cloud.turn_app,
        "turn_api_key": cloud.turn_api_key,
        "turn_secret_key": cloud.turn_secret_key,
        "turn_secret": cloud.turn_secret,
    }


def _environment(facts: dict[str, str]) -> dict[str, str]:
    """Return the variables from which clients take their defaults, for what ``serve`` says."""
    return {
        "METERED_URL": facts["url"],
        "METERED_KEY": facts["publishable_key"],
        "METERED_KEY_ID": facts["key_id"],
        "METERED_KEY_SECRET": facts["key_secret"],
        "METERED_SFU_URL": facts["http_url"],
        "METERED_SFU_APP_ID": facts["sfu_app_id"],
        "METERED_SFU_SECRET": facts["sfu_secret"],
    }

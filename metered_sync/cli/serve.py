"""Run a local cloud until Ctrl-C: ``metered-sync serve``."""

from __future__ import annotations

import argparse
import json
import sys
import threading

from metered_sync.cli.command import Commands

__all__ = ["add_to", "run"]


def add_to(commands: Commands) -> None:
    """Add the command and its options."""
    serve = commands.add_parser(
        "serve",
        help="run a local cloud until Ctrl-C",
        description="Run a messaging service and an SFU on this machine until Ctrl-C. "
        "Prints what clients need to connect, as lines for a shell.",
    )
    serve.add_argument("--port", type=int, default=0, help="the TCP port; 0 (default): a free one")
    serve.add_argument("--host", default="127.0.0.1", help="a loopback address")
    serve.add_argument("--json", action="store_true", help="print one JSON object instead")
    serve.add_argument("--no-limits", action="store_true", help="lift the service's abuse limits")
    serve.add_argument(
        "--exit-with-stdin",
        action="store_true",
        help="stop when standard input ends, for programs that start this one",
    )
    serve.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; return the exit status."""
    from metered_sync.local import LocalCloud

    stop = threading.Event()
    if options.exit_with_stdin:

        def watch() -> None:
            sys.stdin.read()
            stop.set()

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    with LocalCloud(host=options.host, port=options.port, limits=not options.no_limits) as cloud:
        facts = {
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
        if options.json:
            print(json.dumps(facts), flush=True)  # noqa: T201
        else:
            for name, value in _environment(facts).items():
                print(f"export {name}={value}")  # noqa: T201
            for name in (name for name in facts if name.startswith("turn")):  # no client's default
                print(f"# {name}: {facts[name]}")  # noqa: T201
            print("# serving; Ctrl-C ends it", flush=True)  # noqa: T201
        while not stop.wait(0.5):  # in slices: Windows sees Ctrl-C only between two waits
            pass
    return 0


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

"""The command line: ``metered-sync serve`` and ``metered-sync demo``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from metered_sync._version import __version__
from metered_sync.errors import MeteredError

__all__ = ["main"]

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)  # so that ``with`` blocks and children are closed
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except (MeteredError, ImportError, ValueError) as error:
        print(f"metered-sync: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _terminated(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metered-sync", description="Realtime messaging and media without asyncio."
    )
    parser.add_argument("--version", action="version", version=f"metered_sync {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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
    serve.set_defaults(run=_serve)

    demo = commands.add_parser(
        "demo",
        help="publish a clip and watch it, through a local cloud",
        description="Start a local cloud, publish a video clip through its SFU from one process, "
        "read it in another, and show what arrived.",
    )
    demo.add_argument("--seconds", type=float, default=8.0, help="how long to watch (default 8)")
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("metered-sync-demo.png"),
        help="where the picture goes (default metered-sync-demo.png)",
    )
    demo.set_defaults(run=_demo)
    return parser


def _serve(options: argparse.Namespace) -> int:
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


def _demo(options: argparse.Namespace) -> int:
    from metered_sync.demo.stage import run

    run(options.output, seconds=options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

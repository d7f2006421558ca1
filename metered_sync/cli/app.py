"""Load the command that was named, run it, and turn its errors into lines and exit statuses."""

from __future__ import annotations

import importlib
import io
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

from metered_sync._version import __version__
from metered_sync.cli import output
from metered_sync.errors import MeteredError
from metered_sync.wire.secrets import cut_secrets, scrub

__all__ = ["app", "run"]

NAME = "metered-sync"
COMPLETION = "_METERED_SYNC_COMPLETE"
"""The variable by which a shell asks for completions."""
INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""
COMMANDS = (
    "demo",
    "serve",
    "publish",
    "listen",
    "peers",
    "kick",
    "usage",
    "token",
    "doctor",
    "turn",
    "sfu",
    "room",
)
"""In the order of the help: each is ``command`` of the module of its name."""


class App(click.Group):
    """Some commands, each loaded when it is needed."""

    def __init__(self, name: str, names: Sequence[str], **options: Any) -> None:
        super().__init__(name, **options)
        self._names = names

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        command: click.Command = importlib.import_module(
            f"metered_sync.cli.commands.{cmd_name}"
        ).command
        return command


app = App(
    NAME,
    COMMANDS,
    help="Realtime messaging and media, at a terminal and in scripts.\n\n"
    "Keys come from the environment (METERED_KEY and its like), from options after the command, "
    "or from a local cloud: --local.",
    epilog=f'Completion: eval "$({COMPLETION}=bash_source {NAME})", or zsh_source, or fish_source.',
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app = click.version_option(__version__, message=f"metered_sync {__version__}")(app)


def _app_inside(name: str, commands: Sequence[str]) -> App:
    """Return the command line as a part of another one."""
    words = "Keys come from the application's settings, or from options after the command."
    return App(name, commands, help=words, context_settings=app.context_settings)


def run(
    arguments: list[str],
    name: str = NAME,
    commands: Sequence[str] | None = None,
    credential: Callable[[], dict[str, Any]] | None = None,
) -> int:
    """Run the command line; return the exit status. Arguments as of :func:`~.main.main`."""
    group = app if commands is None else _app_inside(name, commands)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if instruction := os.environ.get(COMPLETION):
            return shell_complete(app, {}, NAME, COMPLETION, instruction)
        with (
            _ends_by_signal(),
            group.make_context(name, arguments, obj=credential) as context,
        ):
            return group.invoke(context) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        output.talk(cut_secrets(shown.getvalue().rstrip()))  # (a secret as an argument, perhaps)
        return error.exit_code
    except BrokenPipeError:
        return 0  # the reader has had enough
    except (MeteredError, ImportError, ValueError, OSError, queue.Full) as error:
        output.talk(f"{name}: {scrub(str(error))}")
        return 1
    finally:
        output.finish()


@contextmanager
def _ends_by_signal() -> Iterator[None]:
    """Close ``with`` blocks and children when the process is told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:  # (nohup ignores one of them, and means it)
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)

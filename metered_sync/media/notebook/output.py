"""Where a preview is shown: one output of a notebook's cell, updated in place.

The thread that asks for an output makes it, so that it belongs to the cell that runs
there. It is updated under its display id, from any thread, and stays where it is. Nothing
is ever cleared and shown again: the page would jump.
"""

from __future__ import annotations

import base64
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Look", "Output", "WidgetOutput", "notebook", "running_cell"]

VIEW = "application/vnd.jupyter.widget-view+json"


class Look(NamedTuple):
    """What is shown at a time."""

    mime: str
    """``image/jpeg``, or a text: ``image/svg+xml``, ``text/html``."""
    data: bytes
    text: str
    """The same in words, for front ends that show nothing else."""

    def bundle(self) -> dict[str, Any]:
        """Return it as notebooks are sent it, and save it."""
        image = self.mime == "image/jpeg"
        data = base64.b64encode(self.data).decode("ascii") if image else self.data.decode()
        return {self.mime: data, "text/plain": self.text}


def notebook() -> Any:
    """Return the shell of the notebook whose cells run in this process, or ``None``."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return None if getattr(shell, "kernel", None) is None else shell


def running_cell(shell: Any) -> str | None:
    """Return the id of the cell that runs, where the front end tells it."""
    request: Any = getattr(shell.kernel, "get_parent", dict)()
    cell_id: str | None = (request.get("metadata") or {}).get("cellId")
    return cell_id


class Output:
    """An output that is replaced each time. The front end does not answer."""

    answers = False
    """Whether the front end may be expected to say what it has shown."""

    def __init__(self, shell: Any, look: Look, view: Mapping[str, Any] | None = None) -> None:
        """Add an output to the cell that this thread runs; a ``view`` is preferred to the look."""
        self._publisher = shell.display_pub
        self._transient = {"display_id": uuid.uuid4().hex}
        self._publish(look, view, update=False)

    def show(self, look: Look, number: int, view: Mapping[str, Any] | None = None) -> None:
        """Show something else; ``number`` counts up from 1."""
        self._publish(look, view, update=True)

    def _publish(self, look: Look, view: Mapping[str, Any] | None, update: bool) -> None:
        # (Waits until the kernel has sent what it printed so far: nothing piles up there.)
        bundle = {**look.bundle(), **(view or {})}
        self._publisher.publish(bundle, transient=self._transient, update=update)

    def close(self, look: Look) -> Output:
        """Show this for good: it is what the saved notebook has. Returns a plain output."""
        self.show(look, 0)
        return self


class WidgetOutput:
    """An output with a widget in it: its picture changes without a flicker, and is sent raw.

    Two more widgets, which nobody sees, let the front end answer: one is told the number
    of what is shown, and a link between the two, which the front end follows by itself,
    has the other one report it. A front end without widgets shows the first picture.
    """

    answers = True

    def __init__(self, shell: Any, look: Look, answered: Callable[[int], None]) -> None:
        """Add an output; ``answered(number)`` is called on any thread, first with 0.

        Raises:
            ImportError: There is no ipywidgets.
        """
        import ipywidgets

        kind = ipywidgets.HTML if look.mime == "text/html" else ipywidgets.Image
        # (As a plain output has it, so that nothing moves when that takes its place.)
        self._shown = kind(layout={"margin": "0", "max_width": "100%"})
        self._number, self._answer = ipywidgets.IntText(0), ipywidgets.IntText(-1)
        link = ipywidgets.jsdlink((self._number, "value"), (self._answer, "value"))
        self._answer.observe(lambda change: answered(change["new"]), "value")
        self._widgets = (link, self._answer, self._number, self._shown)
        self._fill(look)
        self._view = {VIEW: self._shown._repr_mimebundle_()[VIEW]}
        self._output = Output(shell, look, self._view)

    def show(self, look: Look, number: int) -> None:
        """Show something else; ``number`` counts up from 1."""
        self._fill(look)
        if number == 1:
            self._output.show(look, number, self._view)
        self._number.value = number

    def close(self, look: Look) -> Output:
        """Put what is shown in the widget's place, for good. Returns a plain output."""
        self._output.close(look)
        for widget in self._widgets:
            for part in (getattr(widget, "style", None), getattr(widget, "layout", None), widget):
                if part is not None:
                    part.close()
        return self._output

    def _fill(self, look: Look) -> None:
        with self._shown.hold_sync():  # in one message
            if look.mime == "text/html":
                self._shown.value = look.data.decode()
            else:
                self._shown.format = look.mime.partition("/")[2]
                self._shown.value = look.data

"""Update one output of a notebook's cell in place.

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

__all__ = ["CellOutput", "Rendering", "WidgetOutput", "notebook"]

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
"""The MIME type under which a notebook shows a widget."""


class Rendering(NamedTuple):
    """Hold one state of a preview, in a format that notebooks show."""

    mime: str
    """The MIME type: ``image/jpeg``, or a text: ``image/svg+xml``, ``text/html``."""
    data: bytes
    text: str
    """The state in words, for front ends that show nothing else."""

    def bundle(self) -> dict[str, Any]:
        """Return the state as a MIME bundle, which notebooks are sent and save."""
        image = self.mime == "image/jpeg"
        data = base64.b64encode(self.data).decode("ascii") if image else self.data.decode()
        return {self.mime: data, "text/plain": self.text}


def notebook() -> Any:
    """Return the shell of the notebook whose cells run in this process, or ``None``."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return None if getattr(shell, "kernel", None) is None else shell


class CellOutput:
    """Show states by replacing a cell's output each time. The front end does not answer."""

    answers = False
    """Whether the front end may be expected to say which state it has shown."""

    def __init__(self, shell: Any, state: Rendering, view: Mapping[str, Any] | None = None) -> None:
        """Add an output to the cell that this thread runs; a ``view`` is preferred to the state."""
        self._publisher = shell.display_pub
        self._transient = {"display_id": uuid.uuid4().hex}
        self._publish(state, view, update=False)

    def show(self, state: Rendering, number: int, view: Mapping[str, Any] | None = None) -> None:
        """Show another state; ``number`` counts up from 1."""
        self._publish(state, view, update=True)

    def _publish(self, state: Rendering, view: Mapping[str, Any] | None, update: bool) -> None:
        # (Waits until the kernel has sent what it printed so far: nothing piles up there.)
        bundle = {**state.bundle(), **(view or {})}
        self._publisher.publish(bundle, transient=self._transient, update=update)

    def close(self, state: Rendering) -> CellOutput:
        """Show a state for good: the saved notebook has it. Return a plain output."""
        self.show(state, 0)
        return self


class WidgetOutput:
    """Show states in a widget: its picture changes without a flicker, and is sent raw.

    Two more widgets, which nobody sees, let the front end answer: one is told the number
    of what is shown, and a link between the two, which the front end follows by itself,
    has the other one report it. A front end without widgets shows the first picture.
    """

    answers = True

    def __init__(self, shell: Any, state: Rendering, answered: Callable[[int], None]) -> None:
        """Add an output; ``answered(number)`` is called on any thread, first with 0.

        Raises:
            ImportError: There is no ipywidgets.
        """
        import ipywidgets

        kind = ipywidgets.HTML if state.mime == "text/html" else ipywidgets.Image
        # (As a plain output has it, so that nothing moves when that takes its place.)
        self._shown = kind(layout={"margin": "0", "max_width": "100%"})
        self._number, self._answer = ipywidgets.IntText(0), ipywidgets.IntText(-1)
        link = ipywidgets.jsdlink((self._number, "value"), (self._answer, "value"))
        self._answer.observe(lambda change: answered(change["new"]), "value")
        self._widgets = (link, self._answer, self._number, self._shown)
        self._fill(state)
        self._view = {WIDGET_VIEW: self._shown._repr_mimebundle_()[WIDGET_VIEW]}
        self._output = CellOutput(shell, state, self._view)

    def show(self, state: Rendering, number: int) -> None:
        """Show another state; ``number`` counts up from 1."""
        self._fill(state)
        if number == 1:
            self._output.show(state, number, self._view)
        self._number.value = number

    def close(self, state: Rendering) -> CellOutput:
        """Put a state in the widget's place, for good. Return a plain output."""
        self._output.close(state)
        for widget in self._widgets:
            for part in (getattr(widget, "style", None), getattr(widget, "layout", None), widget):
                if part is not None:
                    part.close()
        return self._output

    def _fill(self, state: Rendering) -> None:
        with self._shown.hold_sync():  # in one message
            if state.mime == "text/html":
                self._shown.value = state.data.decode()
            else:
                self._shown.format = state.mime.partition("/")[2]
                self._shown.value = state.data

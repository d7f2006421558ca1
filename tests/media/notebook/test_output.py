"""Update outputs in place: what a notebook is sent, and by which id."""

from __future__ import annotations

from typing import Any

from metered_sync.media.notebook.output import CellOutput, Rendering, notebook

JPEG = Rendering("image/jpeg", b"\xff\xd8", "a picture")
HTML = Rendering("text/html", b"<b>loud</b>", "-3 dBFS")


class Shell:
    """What a kernel's shell offers to those who publish."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], dict[str, str], bool]] = []
        self.display_pub = self

    def publish(self, bundle: dict[str, Any], *, transient: dict[str, str], update: bool) -> None:
        self.sent.append((bundle, transient, update))


def test_a_state_is_a_mime_bundle() -> None:
    assert JPEG.bundle() == {"image/jpeg": "/9g=", "text/plain": "a picture"}
    assert HTML.bundle() == {"text/html": "<b>loud</b>", "text/plain": "-3 dBFS"}


def test_an_output_is_replaced_under_its_id() -> None:
    shell = Shell()
    first, second = CellOutput(shell, JPEG), CellOutput(shell, HTML, {"view": 1})
    first.show(HTML, 1)
    assert first.close(JPEG) is first
    bundles = [bundle for bundle, _, _ in shell.sent]
    assert bundles == [JPEG.bundle(), {**HTML.bundle(), "view": 1}, HTML.bundle(), JPEG.bundle()]
    assert [update for _, _, update in shell.sent] == [False, False, True, True]
    ids = [transient["display_id"] for _, transient, _ in shell.sent]
    assert ids[0] == ids[2] == ids[3] != ids[1]
    assert not first.answers
    assert not second.answers


def test_outside_of_a_notebook_there_is_no_shell() -> None:
    assert notebook() is None

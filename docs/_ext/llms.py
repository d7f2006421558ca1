"""Write ``llms.txt`` and ``llms-full.txt``: the site for those who let a machine read it.

The first lists all pages with their first sentence (https://llmstxt.org); the second has all that
they say: guides as they were written, notebooks without pictures, the reference as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder
from sphinx.writers.text import TextTranslator

import metered_sync


def sections(app: Sphinx) -> Iterator[tuple[str, list[str]]]:
    """Yield the captions of the site's table of contents, and the pages under each."""
    root = app.env.get_doctree(app.config.root_doc)
    for toctree in root.findall(addnodes.toctree):
        yield toctree["caption"], list(toctree["includefiles"])


def summary(app: Sphinx, page: str) -> str:
    """Return the first sentence of a page."""
    for paragraph in app.env.get_doctree(page).findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            return re.split(r"(?<=[.!?])\s", paragraph.astext().replace("\n", " "))[0]
    return ""


def text(app: Sphinx, page: str) -> str:
    """Return what a page says."""
    path = Path(app.env.doc2path(page))
    if path.suffix == ".md":
        return path.read_text()
    if path.suffix == ".ipynb":
        return "\n\n".join(cell_texts(json.loads(path.read_text())["cells"]))
    doctree = app.env.get_doctree(page)
    for name in list(doctree.findall(addnodes.pending_xref_condition)):
        name.replace_self(name.children if name["condition"] == "resolved" else [])
    builder = TextBuilder(app, app.env)
    builder.secnumbers = {}
    translator = TextTranslator(doctree, builder)
    doctree.walkabout(translator)
    return translator.body


def cell_texts(cells: list[dict]) -> Iterator[str]:  # type: ignore[type-arg]
    """Yield the cells of a notebook as Markdown, with what code has printed."""
    for cell in cells:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", []):
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            yield f"```\n{''.join(shown).rstrip()}\n```"


def write(app: Sphinx, error: Exception | None) -> None:
    """Write both files beside the start page."""
    if error or app.builder.name != "html":
        return
    intro = f"# {app.config.project}\n\n> {(metered_sync.__doc__ or '').splitlines()[0]}\n"
    listed, full = [intro], [intro]
    for caption, pages in sections(app):
        listed.append(f"\n## {caption}\n")
        for page in pages:
            title = app.env.titles[page].astext()
            listed.append(f"- [{title}]({app.builder.get_target_uri(page)}): {summary(app, page)}")
            full.append(f"\n---\n\nPage: {app.builder.get_target_uri(page)}\n\n{text(app, page)}")
    folder = Path(app.outdir)
    (folder / "llms.txt").write_text("\n".join(listed) + "\n")
    (folder / "llms-full.txt").write_text("\n".join(full) + "\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Show the library's names as those who call it see them.

Signatures come without what is for the library alone: parameters with an underscore, and all
parameters of classes that only the library makes. A name that is loaded lazily gets the docstring
from where it lives.
"""

from __future__ import annotations

import builtins
import dataclasses
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docstrings import prepare_docstring

import metered_sync

PRIVATE = re.compile(r",? (?:\*, )?_\w+: [^=,]+ = [^,)]+")
"""A parameter with an underscore, in a signature."""
SECTION = re.compile(r"(Returns|Yields):$")


def public_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    """Leave out of a signature what callers cannot give."""
    if not signature:
        return None
    if what in ("class", "exception") and not is_made_by_users(thing):
        return "", None
    return PRIVATE.sub("", signature), returns


def is_made_by_users(kind: type) -> bool:
    """Say whether a class is for users to call: then it says what its arguments are."""
    documented = f"{kind.__doc__}{kind.__init__.__doc__}"  # type: ignore[misc]
    return dataclasses.is_dataclass(kind) or "Args:" in documented


def untyped_texts(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Take what stands before a colon for text, not for a type: types are in the signatures."""
    texts = [0] if lines and what in ("attribute", "data", "property") else []
    texts += [number + 1 for number, line in enumerate(lines[:-1]) if SECTION.match(line.strip())]
    for number in texts:
        lines[number] = re.sub(r"\S", r": \g<0>", lines[number], count=1)


def arguments_of_class(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Show what a class takes where only its constructor says so."""
    constructor = (thing.__init__.__doc__ or "") if what == "class" else ""
    if "Args:" in constructor and not any(line.strip() == "Args:" for line in lines):
        arguments = prepare_docstring(constructor)
        lines += ["", *arguments[arguments.index("Args:") :]]


def docstring_of_data(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Find the docstring of a type alias where the alias is defined."""
    module, _, attribute = name.rpartition(".")
    home = metered_sync._MODULES.get(attribute)
    if what != "data" or module != "metered_sync" or home is None:
        return
    try:
        documented = ModuleAnalyzer.for_module(home).find_attr_docs()
    except PycodeError:
        return
    lines[:] = documented.get(("", attribute), [])


def unlink_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """Leave ``bytes`` of a signature alone: some class has a property of that name."""
    for reference in list(doctree.findall(addnodes.pending_xref)):
        if reference.get("refdomain") == "py" and hasattr(builtins, reference["reftarget"]):
            # (A type has two children: what a link shows, and what is shown without one.)
            reference.replace_self(nodes.Text(reference.children[-1].astext()))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", public_signature)
    app.connect("autodoc-process-docstring", arguments_of_class, priority=300)
    app.connect("autodoc-process-docstring", docstring_of_data, priority=300)
    app.connect("autodoc-process-docstring", untyped_texts, priority=400)
    app.connect("doctree-read", unlink_builtins)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Build the documentation site: ``make docs``.

The sources are the Markdown pages as they lie in the repository, with links that also lead
somewhere on the hosting page; so the source directory is its root. Nothing is fetched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metered_sync import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "metered_sync"
author = "metered_sync developers"
copyright = author
version = release = __version__

root_doc = "docs/index"
include_patterns = [
    "docs/**", "notebooks/*", "benchmarks/README.md", "examples/*/README.md",
    "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
]  # fmt: skip
exclude_patterns = ["docs/README.md", "**/.*", ".*", "build", "metered_sync", "tests"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "llms", "reference"]
templates_path = ["_templates"]

# Headings have the anchors that the hosting page gives them.
myst_heading_anchors = 6
nb_execution_mode = "off"
napoleon_numpy_docstring = False

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    # (But not what these have from Python.)
    "exclude-members": "droppable, subject",
    "inherited-members": "BaseException, Event, Exception, IntEnum, OSError, int, object",
}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(aiortc|asyncio|av|collections|concurrent|np|os|queue)\..*"),
    ("py:.*", r"(django|flask|markupsafe)\..*|ImproperlyConfigured"),
    ("py:.*", r"metered_sync\.(bridge|engine|local|media|wire)\..*"),
    ("py:class", r"(.*\.)?([A-Z]|[A-Z]+_co|Buffer|GivenIceServers|NDArray|Self)"),
    ("py:class", r"(AudioFrame|Packet|VideoFrame)"),
]

toc_object_entries_show_parents = "hide"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "index.html"}
html_copy_source = False

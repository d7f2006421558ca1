"""Test that links, file names and anchors in the documentation lead somewhere."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT
from tests.test_architecture import IMPORTS, MODULES, folder

PAGES = sorted(
    path
    for folder in ("", "docs/**", "benchmarks", "examples/**", "notebooks")
    for path in ROOT.glob(f"{folder}/*.md" if folder else "*.md")
)
SOURCES = sorted(
    path for folder in ("metered_sync", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
)
TOPS = ("benchmarks", "docs", "examples", "metered_sync", "notebooks", "tests", ".ci", ".github")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")
FILE = re.compile(r"`([\w.-]+(?:/[\w.-]*)+)(?:::(\w+))?`")
ARCHITECTURE = ROOT / "docs" / "architecture" / "README.md"
COMMON = ("metered_sync", "metered_sync._version", "metered_sync.errors")
"""Modules that all import."""
CITATION = re.compile(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?")


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        for heading in headings
    )


def test_pages_are_found() -> None:
    assert len(PAGES) > 15
    assert "limits-and-quotas" in anchors(ROOT / "docs" / "protocol" / "signalling.md")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.resolve()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: Path) -> None:
    for name, function in FILE.findall(prose(page)):
        if name.split("/")[0] in TOPS:
            assert (ROOT / name).exists(), name
            if function:
                assert re.search(rf"\b(def|class) {function}\b", (ROOT / name).read_text()), (
                    function
                )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_has_what_is_named(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z ]+?)(?=`|  | #|$)", page.read_text(), re.MULTILINE)
    assert {word for words in named for word in words.split()} <= targets


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_timings_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\bTimings\.(\w+)", page.read_text()):
        assert hasattr(DEFAULT_TIMINGS, name), name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_each_guide_is_in_the_list_of_guides() -> None:
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md", "index.md"}
    listed = re.findall(r"\[([\w-]+\.md)\]\(\1\)", (ROOT / "docs" / "README.md").read_text())
    assert sorted(listed) == sorted(guides)


def test_the_start_page_says_how_to_record_a_room() -> None:
    start = (ROOT / "docs" / "index.md").read_text()
    assert re.search(r"record a room.*\(recording\.md#recording-a-room\)", start)
    assert "recording-a-room" in anchors(ROOT / "docs" / "recording.md")


PUBLIC = (
    "metered_sync", "metered_sync.contrib.django", "metered_sync.contrib.flask",
    "metered_sync.doctor", "metered_sync.local", "metered_sync.testing",
)  # fmt: skip


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_name_is_in_the_reference(module: str) -> None:
    pages = [path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst")]
    directive = r"^\.\. (?:currentmodule|auto\w+):: (.+)$"
    listed, current = set(), ""
    for line in re.findall(directive, "\n".join(pages), re.MULTILINE):
        if line in PUBLIC:
            current = line
        listed.add(line if line.startswith("metered_sync") else f"{current}.{line}")
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    assert {f"{module}.{name}" for name in names} <= listed


def test_the_reference_names_a_builtin_type_once(monkeypatch: pytest.MonkeyPatch) -> None:
    addnodes = pytest.importorskip("sphinx.addnodes")
    nodes = importlib.import_module("docutils.nodes")
    utils = importlib.import_module("docutils.utils")
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    page = utils.new_document("page")
    for target in ("str", "Token"):  # as Sphinx writes types with unqualified names
        ways = [
            addnodes.pending_xref_condition("", target, condition=way) for way in ("resolved", "*")
        ]
        page += addnodes.pending_xref("", *ways, refdomain="py", reftarget=target)
    importlib.import_module("reference").unlink_builtins(None, page)
    assert [type(child) for child in page.children] == [nodes.Text, addnodes.pending_xref]
    assert page.children[0].astext() == "str"


def test_the_page_that_the_gate_explains_is_the_example() -> None:
    shown = re.findall(r"^```js\n(.*?)^```", (ROOT / "docs" / "gate.md").read_text(), re.S | re.M)
    assert (ROOT / "examples" / "browser_room" / "room.js").read_text() in shown


def test_citations_in_the_source_lead_somewhere() -> None:
    wrong = []
    for source in SOURCES:
        for name, anchor in CITATION.findall(source.read_text()):
            path = ROOT / name
            if not path.exists() or (anchor and anchor not in anchors(path)):
                wrong.append(f"{source.relative_to(ROOT)}: {name}#{anchor}")
    assert not wrong, "\n".join(wrong)


def test_the_table_of_capabilities_is_whole() -> None:
    folder = ROOT / "metered_sync" / "engine" / "webrtc" / "aiortc_private"
    source = (folder / "capabilities.py").read_text()
    (body,) = re.findall(r"^class Capability\(Enum\):\n(.*?)^\S", source, re.MULTILINE | re.DOTALL)
    page = (ROOT / "docs" / "architecture" / "aiortc.md").read_text()
    assert re.findall(r"^\| `([A-Z]+)` \|", page, re.MULTILINE)
    assert set(re.findall(r"^\| `([A-Z]+)` \|", page, re.MULTILINE)) == set(
        re.findall(r"^    ([A-Z]+) = ", body, re.MULTILINE)
    )


def package(module: str) -> str:
    """Return the package of a module, as the table of imports names it."""
    parts = folder(module).split(".")[1:]
    return "/".join(parts) or "face"


def import_table() -> list[str]:
    """Return the rows of the table that says which package imports which."""
    rows: dict[str, set[str]] = {package(module): set() for module in MODULES}
    for found in IMPORTS:
        here, there = package(found.importer), package(found.imported)
        if here != there and found.imported not in COMMON:
            rows[here].add(there)
    return [
        f"| `{name}` | {', '.join(f'`{one}`' for one in sorted(imported)) or 'nothing'} |"
        for name, imported in sorted(rows.items())
    ]


def with_import_table(text: str) -> str:
    """Return the page on the architecture with the table as it should be."""
    head, middle, rest = text.partition("| package | imports |\n|---|---|\n")
    return head + middle + "\n".join(import_table()) + "\n" + rest[rest.index("\n\n") + 1 :]


def test_the_table_of_imports_is_true() -> None:
    text = ARCHITECTURE.read_text()
    assert with_import_table(text) == text, "write it anew:  python -m tests.test_docs"


if __name__ == "__main__":
    ARCHITECTURE.write_text(with_import_table(ARCHITECTURE.read_text()))

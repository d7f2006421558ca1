"""The law of the house: floors, no circles, no private parts of others, folders of a size to walk.

It reads the source of every module, imports for type checkers and imports inside functions
included, and runs none of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, run_script

PACKAGE = ROOT / "metered_sync"

FLOORS = (
    {"wire", "errors", "_version"},
    {"bridge"},
    {"engine"},
    {"face"},
    {"local", "cli", "contrib", "demo", "testing", "doctor", "gate", "__main__"},
)
"""From the ground up. What is at the top of the package and not named here is the face."""
WINGS = (
    {"logs", "network"},
    {"http_session"},
    {"http"},
    {"messaging", "webrtc"},
    {"rest", "sending"},
    {"rooms", "sfu"},
    {"sfu_rooms"},
)
"""The floors inside the engine."""
MAX_MODULES = 20
"""How many modules a folder may have."""
MAX_MODULES_AT_THE_TOP = 24
"""How many the package's top may have."""


@dataclass(frozen=True)
class Import:
    """One module imports another, or a name of it."""

    importer: str
    imported: str
    names: tuple[str, ...]
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {', '.join(self.names) or 'all'} of {self.imported}"


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> Iterator[Import]:
    """Yield what a module imports of the package."""

    def visit(node: ast.AST, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, True)
            for child in node.orelse:
                yield from visit(child, for_types)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    yield Import(module, alias.name, (), for_types)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written out whole"
            base = node.module or ""
            if base.split(".")[0] == "metered_sync":
                names = tuple(alias.name for alias in node.names)
                for name in names:
                    if f"{base}.{name}" in MODULES:
                        yield Import(module, f"{base}.{name}", (), for_types)
                rest = tuple(name for name in names if f"{base}.{name}" not in MODULES)
                if rest:
                    yield Import(module, base, rest, for_types)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, for_types)

    yield from visit(ast.parse(MODULES[module].read_text()), False)


# (The package itself names the whole face, for type checkers.)
IMPORTS = [found for module in MODULES if module != "metered_sync" for found in imports_of(module)]


def folder(module: str) -> str:
    """Return the package that a module is in: itself, for a package."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def place(module: str) -> str:
    """Return which part of the house a module belongs to."""
    top = [*module.split("."), "face"][1]
    named = set().union(*FLOORS)
    return top if top in named else "face"


def floor(module: str) -> int:
    return next(height for height, parts in enumerate(FLOORS) if place(module) in parts)


def wing(module: str) -> int | None:
    """Return the floor inside the engine; ``None`` elsewhere, and for the engine's own door."""
    parts = module.split(".")
    if len(parts) < 3 or parts[1] != "engine":
        return None
    return next(height for height, names in enumerate(WINGS) if parts[2] in names)


def test_every_module_is_read() -> None:
    assert len(MODULES) > 100
    assert len(IMPORTS) > 500


def test_no_floor_imports_from_above() -> None:
    above = [str(found) for found in IMPORTS if floor(found.imported) > floor(found.importer)]
    assert not above, "\n".join(above)


def test_no_wing_of_the_engine_imports_from_above_or_from_its_neighbour() -> None:
    wrong = []
    for found in IMPORTS:
        here, there = wing(found.importer), wing(found.imported)
        if here is None or there is None:
            continue
        same = found.importer.split(".")[2] == found.imported.split(".")[2]
        if there > here or (there == here and not same):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that import each other, directly or not (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_no_circle_of_imports() -> None:
    edges: dict[str, set[str]] = {}
    for found in IMPORTS:
        if found.importer != found.imported and found.imported != "metered_sync":
            edges.setdefault(found.importer, set()).add(found.imported)
    found_circles = circles(edges)
    assert not found_circles, "\n".join(", ".join(sorted(group)) for group in found_circles)


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_nobody_imports_private_names_across_folders() -> None:
    wrong = []
    for found in IMPORTS:
        here, there = folder(found.importer), folder(found.imported)
        private = [name for name in found.names if name.startswith("_") and name != "__version__"]
        if here != there and private:
            wrong.append(str(found))
        # A private module serves its own folder; one at the top of the package serves the face.
        last = found.imported.rpartition(".")[2]
        if last.startswith("_") and last != "_version" and here != there:
            in_face = place(found.importer) == "face" and there == "metered_sync"
            if not in_face:
                wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_the_face_says_neither_async_nor_await() -> None:
    asynchronous = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{module}, line {node.lineno}"
        for module, path in MODULES.items()
        if place(module) == "face"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, asynchronous)
    ]
    assert not wrong, "\n".join(wrong)


def test_one_module_has_the_hooks_for_forks_and_exits() -> None:
    hooks = ("register_at_fork", "_register_atexit", "atexit.register")
    found = {name for name, path in MODULES.items() if any(h in path.read_text() for h in hooks)}
    assert found == {"metered_sync.bridge.process"}


def test_no_folder_is_a_cellar() -> None:
    sizes: dict[str, int] = {}
    for module, path in MODULES.items():
        if path.name not in ("__init__.py", "__main__.py"):
            sizes[folder(module)] = sizes.get(folder(module), 0) + 1
    assert sizes["metered_sync"] <= MAX_MODULES_AT_THE_TOP
    large = {
        name: size for name, size in sizes.items() if name != "metered_sync" and size > MAX_MODULES
    }
    assert not large


def test_every_folder_says_what_lives_there() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert text, f"{module} has no docstring"
            rows = [name for name in MODULES if name.rpartition(".")[0] == module]
            missing = [
                name
                for name in rows
                if module != "metered_sync"
                and not name.endswith("__main__")
                and name.rpartition(".")[2] not in text
            ]
            assert not missing, f"the docstring of {module} does not name {', '.join(missing)}"


def test_importing_the_package_loads_next_to_nothing() -> None:
    done = run_script(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import metered_sync\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "heavy = ('anyio', 'asyncio', 'av', 'jwt', 'numpy', 'requests', 'websockets')\n"
        "print(*sorted(loaded.intersection(heavy)))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('metered_sync')))\n"
    )
    assert done.stderr == ""
    assert done.stdout == "\nmetered_sync metered_sync._version\n"


NOT_YET = (
    # What runs a connection comes with the first one, and with it what JSON needs.
    "metered_sync.engine.messaging.link",
    "metered_sync.wire.frames",
    "metered_sync.wire.json_codec",
    "metered_sync.wire.timings",
    "msgspec",
    "uuid",
    "uvloop",
    "websockets",
    # Events that only rooms, data channels and sources have; tokens, for those who have some.
    "metered_sync.events",
    "metered_sync.wire.media_events",
    "metered_sync.wire.control",
    "metered_sync.wire.tokens",
    "metered_sync.wire.turn",
    "jwt",
    # What other parts are made of.
    "aiohttp",
    "aiortc",
    "av",
    "cryptography",
    "email",
    "numpy",
    "requests",
    "rich",
    "urllib3",
)
"""Modules that a program which only sends and receives messages does not wait for."""


def test_importing_the_client_loads_what_it_needs_to_connect_later() -> None:
    done = run_script(
        "import sys\n"
        "from metered_sync import DisconnectedError, Message, SignallingClient, Subscription\n"
        "from metered_sync import ReconnectOptions, SignallingClientState\n"
        "client = SignallingClient(api_key='pk_live_x')\n"
        f"print(*(name for name in {NOT_YET!r} if name in sys.modules))\n"
    )
    assert done.stderr == ""
    assert done.stdout == "\n"


def test_what_the_client_loads_later_is_there() -> None:
    """A module that has been renamed would not be missed above."""
    ours = [name for name in NOT_YET if name.startswith("metered_sync")]
    assert set(ours) <= set(MODULES)


def test_a_client_loads_the_module_of_tokens_for_those_who_give_one() -> None:
    done = run_script(
        "import sys\n"
        "from metered_sync import SignallingClient\n"
        "provide = lambda: 'eyJ.a.b'\n"
        "SignallingClient(token_provider=provide)\n"
        "print('metered_sync.wire.control' in sys.modules)\n"
        "from metered_sync import Token\n"
        "SignallingClient(token_provider=Token('eyJ.a.b', 1.0))\n"
        "SignallingClient(token_provider='eyJ.a.b')\n"
        "print('metered_sync.engine.messaging.link' in sys.modules)\n"
    )
    assert (done.stdout, done.stderr) == ("False\nFalse\n", "")

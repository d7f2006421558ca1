"""Check that no version of a dependency is admitted that is known to have a hole."""

from __future__ import annotations

import configparser
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

SAFE = {
    "aiohttp": "3.13.3",
    "cryptography": "44.0.1",
    "pillow": "10.3",
    "requests": "2.32.4",
    "urllib3": "2.6",
}
"""The first version without the hole, of each."""


def requirements() -> list[Requirement]:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = (line for text in texts for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("%", "#"))]


@pytest.mark.parametrize("name", SAFE)
def test_versions_with_known_holes_are_not_admitted(name: str) -> None:
    found = [one for one in requirements() if one.name == name]
    assert found
    for one in found:
        (floor,) = [spec.version for spec in one.specifier if spec.operator == ">="]
        assert Requirement(f"{name}>={SAFE[name]}").specifier.contains(floor), str(one)


def test_what_is_installed_is_admitted() -> None:
    for one in requirements():
        if one.name in {*SAFE, "aiortc", "av", "pyopenssl", "websockets"}:
            assert one.specifier.contains(version(one.name)), str(one)

"""Test the named codes against the documentation of the protocol."""

from __future__ import annotations

import re
from typing import get_args

from metered_sync import ErrorCode, WsCloseCode
from metered_sync.wire import limits
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "protocol" / "signalling.md").read_text()


def rows(heading: str, cell: str) -> list[str]:
    """Return the first cells of a table on the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^\| ({cell}) \|", section, re.MULTILINE)


def test_every_documented_refusal_has_its_name() -> None:
    documented = [code.strip("`") for code in rows("Error codes", "`[a-z_]+`")]
    assert len(documented) > 10
    assert sorted(get_args(ErrorCode)) == sorted(documented)


def test_every_documented_close_has_its_name() -> None:
    documented = [int(code) for code in rows("Close codes", r"\d{4}")]
    assert len(documented) > 10
    assert sorted(WsCloseCode) == documented


def test_close_codes_are_numbers() -> None:
    assert WsCloseCode.TOKEN_EXPIRED == 4002 == limits.CLOSE_TOKEN_EXPIRED
    assert WsCloseCode(4020) is WsCloseCode.ADMIN_DISCONNECT

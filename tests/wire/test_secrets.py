from __future__ import annotations

import pytest

from metered_sync.wire.secrets import scrub


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1?token=HUSH HTTP/1.1",
        "GET /v1?a=b&key=HUSH HTTP/1.1",
        "https://x/api?secretKey=HUSH&label=x",
        "Authorization: Bearer HUSH",
        "{'Authorization': 'Bearer HUSH'}",
        "the key pk_live_HUSH is wrong",
        "sk_id_x:sk_secret_HUSH",
        "a=ice-pwd:HUSH\r\n",
        "connect to https://user:HUSH@host/x failed",
    ],
)
def test_secrets_are_cut_out(text: str) -> None:
    assert "HUSH" not in scrub(text)
    assert "…" in scrub(text)


def test_other_text_stays_as_it_is() -> None:
    text = "the key of token=… in https://host/path?label=7"
    assert scrub("nothing to hide, keys and tokens") == "nothing to hide, keys and tokens"
    assert "label=7" in scrub(text)

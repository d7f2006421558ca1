"""Test how keys are checked by their form, and that secrets are cut out of texts."""

from __future__ import annotations

import pytest

from metered_sync.wire.secrets import ScrubbedError, scrub, scrubbed_cause


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


class RequestError(OSError):
    """As a library's error that carries its request."""

    def __init__(self, text: str, url: str) -> None:
        super().__init__(text)
        self.url = url


def test_the_cause_of_an_error_shows_its_class_and_its_text() -> None:
    cause = scrubbed_cause(RequestError("GET /x?token=HUSH for HUSH/1 failed", "/x?token=HUSH"))
    assert type(cause) is ScrubbedError
    assert str(cause) == f"{__name__}.RequestError: GET /x?token=… for HUSH/1 failed"
    assert vars(cause) == {}
    assert str(scrubbed_cause(ValueError("no"))) == "ValueError: no"


def test_a_cause_hides_what_it_is_told_to_and_is_not_long() -> None:
    cause = scrubbed_cause(ValueError("HUSH " * 1000), lambda text: text.replace("HUSH", "…"))
    assert "HUSH" not in str(cause)
    assert len(str(cause)) < 600

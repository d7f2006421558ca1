"""Test how keys are checked by their form, and that secrets are cut out of texts."""

from __future__ import annotations

import pytest

from metered_sync.wire.secrets import (
    ScrubbedError,
    check_key_pair,
    check_secret,
    scrub,
    scrubbed,
    scrubbed_cause,
)


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


@pytest.mark.parametrize("value", [None, 7, "", b"HUSH", "HUSH HUSH", "HUSH\n", "HÜSH", "HUSH\0"])
def test_what_cannot_be_a_secret_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(ValueError, match=r"Client: secret ") as caught:
        check_secret("Client", "secret", value)
    assert "H" not in str(caught.value).replace("Client", "")
    assert check_secret("Client", "secret", "HUSH-42+/=") == "HUSH-42+/="


@pytest.mark.parametrize(
    ("key_id", "secret", "words"),
    [
        ("pk_live_HUSH", "sk_secret_HUSH", "publishable"),
        ("sk_id_1", "pk_live_HUSH", "publishable"),
        ("sk_secret_HUSH", "sk_id_1", "swapped"),
        ("sk_id_1", "sk_id_2", "swapped"),
        ("sk_id_1", None, "secret must be"),
        (None, "sk_secret_HUSH", "key_id must be"),
    ],
)
def test_what_is_no_pair(key_id: object, secret: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_key_pair("Client", key_id, secret)
    assert "HUSH" not in str(caught.value)


def test_a_pair() -> None:
    assert check_key_pair("Client", "sk_id_1", "sk_secret_2") == ("sk_id_1", "sk_secret_2")


def test_secrets_are_cut_out_of_decoded_json() -> None:
    value = {"a": ["Bearer HUSH", 7, None, {"b": "x?key=HUSH"}], "c": True}
    assert scrubbed(value) == {"a": ["Bearer …", 7, None, {"b": "x?key=…"}], "c": True}

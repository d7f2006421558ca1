"""Test how keys are checked by their form, and that secrets are cut out of texts."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.wire.secrets import (
    ScrubbedError,
    check_api_key,
    check_key_pair,
    check_secret,
    check_sfu_app,
    check_token,
    cut_secrets,
    scrub,
    scrubbed,
    scrubbed_cause,
)
from tests.support.seen import frames_of


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1?token=HUSH HTTP/1.1",
        "GET /v1?a=b&key=HUSH HTTP/1.1",
        "https://x/api?secretKey=HUSH&label=x",
        "Authorization: Bearer HUSH",
        "{'Authorization': 'Bearer HUSH'}",
        "the key pk_live_HUSH is wrong",
        "the secret sfu_secret_HUSH is wrong",
        "the token eyJHUSH.HUSH.HUSH-HUSH is wrong",
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


# --- keys by their form ---------------------------------------------------------------

PUBLISHABLE, KEY_ID, KEY_SECRET = "pk_live_HUSH", "sk_id_HUSH", "sk_secret_HUSH"
OLD, SFU, TOKEN = "sk_live_HUSH", "sfu_secret_HUSH", "eyJIVVNI.HUSH.HUSH"


def refusal(check: Any, *args: Any) -> str:
    with pytest.raises(ValueError) as caught:
        check(*args)
    assert "HUSH" not in frames_of(caught.value)
    return str(caught.value)


def test_keys_in_their_own_slots() -> None:
    assert check_api_key("C", "api_key", PUBLISHABLE) == PUBLISHABLE
    assert check_api_key("C", "api_key", "pk_test_x") == "pk_test_x"
    assert check_token(TOKEN) == TOKEN
    assert check_key_pair("C", KEY_ID, KEY_SECRET) == (KEY_ID, KEY_SECRET)
    assert check_secret("C", "secret_key", "0a1b2c") == "0a1b2c"
    check_sfu_app("C", "app_1", SFU, ("app_id", "secret"))
    check_sfu_app("C", "65f0a1", "whatever-it-is", ("app_id", "secret"))


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (KEY_ID, "key_id of ControlPlane"),
        (KEY_SECRET, "secret of ControlPlane"),
        (OLD, "nothing any more"),
        (SFU, "secret=… of SfuClient"),
        (TOKEN, "token_provider=… of SignallingClient"),
        ("HUSHHUSHHUSH", "those begin with pk_live_"),
    ],
)
def test_what_is_no_publishable_key_belongs_elsewhere(key: str, slot: str) -> None:
    words = refusal(check_api_key, "C", "METERED_KEY", key)
    assert words.startswith("C: METERED_KEY is ")
    assert slot in words


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (PUBLISHABLE, "api_key=… of SignallingClient"),
        (KEY_ID, "key_id of ControlPlane"),
        (KEY_SECRET, "secret of ControlPlane"),
        (OLD, "nothing any more"),
        (SFU, "secret=… of SfuClient"),
        ("HUSH", "three parts"),
        ("HUSH.HUSH", "three parts"),
        ("HUSH.HUSH.HUSH.HUSH", "three parts"),
        ("HUSH.HÜSH.HUSH", "a character that keys do not have"),
        (f"Bearer {TOKEN}", '"Bearer"'),
    ],
)
def test_what_is_no_token_belongs_elsewhere(key: str, slot: str) -> None:
    assert slot in refusal(check_token, key)


@pytest.mark.parametrize("key", [PUBLISHABLE, KEY_ID, KEY_SECRET, OLD, SFU, TOKEN])
def test_keys_of_other_services_where_a_form_is_not_known(key: str) -> None:
    assert "which belongs to" in refusal(check_secret, "T", "secret_key", key)
    assert "which belongs to" in refusal(check_sfu_app, "S", key, "x", ("app_id", "secret"))
    if key != SFU:
        words = refusal(check_sfu_app, "S", "app", key, ("app_id", "METERED_SFU_SECRET"))
        assert words.startswith("S: METERED_SFU_SECRET is ")
    if key not in (KEY_ID, KEY_SECRET):
        for pair in ((key, KEY_SECRET), (KEY_ID, key)):
            assert "which belongs to" in refusal(check_key_pair, "P", *pair)


def test_the_same_text_twice_and_halves_in_each_others_place() -> None:
    assert "same text" in refusal(check_sfu_app, "S", "HUSH", "HUSH", ("app_id", "secret"))
    assert "swapped" in refusal(check_key_pair, "P", KEY_SECRET, KEY_ID)
    assert "swapped" in refusal(check_key_pair, "P", KEY_SECRET, KEY_SECRET)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("", "\n", "a line break"), ("", "\r\n", "a line break"), ("", "\nMORE", "a line break"),
        ('"', '"', "a quotation mark"), ("'", "'", "a quotation mark"), ("`", "`", "a quotation"),
        ("\u201c", "\u201d", "a quotation mark"), ("\xab", "\xbb", "a quotation mark"),
        (" ", "", "a space"), ("", " ", "a space"), ("\t", "", "a space"), ("", "\xa0", "a space"),
        ("", "\u200b", "a character that keys do not have"), ("\x00", "", "a character that"),
    ],
)  # fmt: skip
def test_keys_that_were_not_copied_whole(before: str, after: str, what: str) -> None:
    def copied(key: str) -> str:
        return f"{before}{key}{after}"

    for check in (
        lambda: check_api_key("C", "api_key", copied(PUBLISHABLE)),
        lambda: check_token(copied(TOKEN)),
        lambda: check_secret("C", "secret_key", copied("HUSHHUSH")),
        lambda: check_sfu_app("C", copied("HUSHHUSH"), SFU, ("app_id", "secret")),
        lambda: check_sfu_app("C", "app", copied(SFU), ("app_id", "secret")),
        lambda: check_key_pair("C", copied(KEY_ID), KEY_SECRET),
        lambda: check_key_pair("C", KEY_ID, copied(KEY_SECRET)),
    ):
        words = refusal(check)
        assert f"contains {what}" in words
        assert "was it copied whole" in words


@pytest.mark.parametrize("value", [None, "", b"pk_live_HUSH", 7, ["pk_live_HUSH"]])
def test_what_is_no_text(value: Any) -> None:
    for check in (
        lambda: check_api_key("C", "api_key", value),
        lambda: check_token(value),
        lambda: check_secret("C", "secret_key", value),
        lambda: check_sfu_app("C", "app", value, ("app_id", "secret")),
        lambda: check_key_pair("C", KEY_ID, value),
    ):
        assert "non-empty string" in refusal(check)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no\r\nERROR root: forged", "no ERROR root: forged"),
        ("\x1b[2Jcleared\x1b]0;title\x07", " [2Jcleared ]0;title "),
        ("a\x00b\x7fc\x85d\x9b31m", "a b c d 31m"),
        ("left\u202eright\u2066x\u2069\u200f\u2028y", "left right x y"),
        (
            "plain, señor \N{SNOWMAN} \N{GRINNING FACE}",
            "plain, señor \N{SNOWMAN} \N{GRINNING FACE}",
        ),
    ],
)
def test_the_texts_of_others_stay_on_their_line(text: str, shown: str) -> None:
    assert scrub(text) == shown
    assert cut_secrets(text) == text

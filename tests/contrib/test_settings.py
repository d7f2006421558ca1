"""Test what is read as a web application's settings, and what is said to be wrong with them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from metered_sync.contrib.resources import Resources, html_json
from metered_sync.contrib.settings import (
    VARIABLES,
    name_problems,
    read_settings,
    token_function,
    value_problems,
)
from tests.support.seen import frames_of

ID, SECRET, KEY = "sk_id_abcdef", "sk_secret_" + "abcdefghij" * 3, "pk_live_abcdefghij"
SFU_SECRET = "sfu_secret_abcdefghij"
SECRETS = (SECRET, SFU_SECRET)
PAIR = {"KEY_ID": ID, "KEY_SECRET": SECRET}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def decide(user: object = None) -> dict[str, str]:
    return {"peer_id": "ann"}


async def decide_later() -> None:
    """An async function, which nothing would run."""


def problems(given: dict[str, Any]) -> list[Any]:
    settings = read_settings("METERED", given)
    return [*name_problems(settings), *value_problems(settings)]


@pytest.mark.parametrize(
    ("given", "codes", "words"),
    [
        (PAIR, [], ""),
        ({"KEY": KEY}, [], ""),
        ({**PAIR, "KEY": KEY, "URL": "wss://rms.example", "TOKEN": decide}, [], ""),
        ({**PAIR, "URL": "https://rms.example"}, [], ""),
        ({**PAIR, "URL": "http://127.0.0.1:8000"}, [], ""),
        ({**PAIR, "TOKEN": f"{__name__}.decide"}, [], ""),
        ({}, ["W001"], "no key to connect with"),
        ({"KEY_ID": "", "KEY": None}, ["W001"], "KEY_ID and KEY_SECRET, or KEY"),
        ({"KEY_ID": ID}, ["E004"], "KEY_SECRET is not"),
        ({"KEY_SECRET": SECRET}, ["E004"], "KEY_ID is not"),
        ({**PAIR, "SFU_APP_ID": "app"}, ["E004"], "METERED_SFU_SECRET will do"),
        ({**PAIR, "SFU_SECRET": SFU_SECRET}, ["E004"], "SFU_APP_ID is not"),
        ({"KEY_ID": SECRET, "KEY_SECRET": ID}, ["E005"], "are swapped"),
        ({"KEY_ID": KEY, "KEY_SECRET": SECRET}, ["E005"], "belongs to api_key"),
        ({"KEY_ID": ID, "KEY_SECRET": SFU_SECRET}, ["E005"], "the secret of an SFU app"),
        ({"KEY_ID": ID, "KEY_SECRET": f"{SECRET}\n"}, ["E005"], "a line break"),
        ({"KEY": SECRET}, ["E005"], "on your server"),
        ({"KEY": ID}, ["E005"], "the id of a secret key"),
        ({**PAIR, "SFU_APP_ID": SFU_SECRET, "SFU_SECRET": "app"}, ["E005"], "SFU_APP_ID is"),
        ({**PAIR, "SFU_APP_ID": "app", "SFU_SECRET": SECRET}, ["E005"], "SFU_SECRET is"),
        ({"KEY_ID": 7, "KEY_SECRET": SECRET}, ["E003"], "KEY_ID must be a text, not int"),
        ({"KEY": {"KEY": SECRET}}, ["E003"], "KEY must be a text, not dict"),
        ({**PAIR, "URL": "https://rms.example/v1"}, ["E006"], "an origin"),
        ({**PAIR, "URL": "ws://rms.example"}, ["E006"], "in the clear"),
        ({**PAIR, "URL": "rms.example"}, ["E006"], "an origin"),
        ({**PAIR, "URL": f"wss://x:{SECRET}@rms.example"}, ["E006"], "an origin"),
        ({**PAIR, "SFU_URL": "wss://sfu.example"}, ["E006"], "SFU_URL must be"),
        ({"KEY": KEY, "TOKEN": decide}, ["E007"], "set KEY_ID and KEY_SECRET"),
        (
            {**PAIR, "TOKEN": "no.such.module"},
            ["E008"],
            "cannot be imported: there is no such module",
        ),
        ({**PAIR, "TOKEN": f"{__name__}.nothing"}, ["E008"], "cannot be imported"),
        ({**PAIR, "TOKEN": "a text"}, ["E008"], "cannot be imported"),
        ({**PAIR, "TOKEN": ""}, [], ""),
        ({**PAIR, "TOKEN": f"{__name__}.decide.x"}, ["E008"], f"there is '{__name__}', but not"),
        ({**PAIR, "TOKEN": f"{__name__}:"}, ["E008"], "a function, not module"),
        ({**PAIR, "TOKEN": f"{__name__}.decide:x"}, ["E008"], f"there is '{__name__}', but not"),
        ({**PAIR, "TOKEN": "tests.support.media_files:nothing"}, ["E008"], "path like shop.token"),
        ({**PAIR, "TOKEN": f"{__name__}.PAIR"}, ["E008"], "a function, not dict"),
        ({**PAIR, "TOKEN": 7}, ["E008"], "a function, not int"),
        ({**PAIR, "TOKEN": decide_later}, ["E008"], "an async function"),
        ({**PAIR, "KEYID": ID}, ["E002"], "did you mean KEY_ID?"),
        ({**PAIR, "sfu_secret": SFU_SECRET}, ["E002"], "did you mean SFU_SECRET?"),
        ({**PAIR, "ROOM": "x"}, ["E002"], "there are KEY_ID, KEY_SECRET"),
        ({**PAIR, 7: "x"}, ["E002"], "no setting 7"),
    ],
)
def test_problems(given: dict[str, Any], codes: list[str], words: str) -> None:
    found = problems(given)
    assert [problem.code for problem in found] == codes
    text = "\n".join(map(str, found))
    assert words in text
    assert not any(secret in text for secret in SECRETS)


def test_the_environment_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_KEY_ID", ID)
    monkeypatch.setenv("METERED_KEY_SECRET", "sk_secret_of_the_environment")
    settings = read_settings("METERED", {"KEY_SECRET": SECRET, "URL": ""})
    assert settings.has("KEY_ID", "KEY_SECRET")
    assert not settings.has("URL")
    assert (settings.get("KEY_ID"), settings.get("KEY_SECRET")) == (ID, SECRET)
    # Errors name the place where it is written.
    monkeypatch.setenv("METERED_KEY_ID", KEY)
    (problem,) = problems({"KEY_SECRET": SECRET})
    assert problem.text.startswith("METERED: METERED_KEY_ID is a publishable key")
    assert SECRET not in repr(read_settings("METERED", PAIR))


def test_names_with_a_prefix() -> None:
    given = {"METERED_KEY_ID": ID, "METERED_KEYSECRET": SECRET, "SECRET_KEY": "other's"}
    settings = read_settings("Metered", given, "METERED_")
    assert settings.has("KEY_ID")
    assert settings.unknown == ("METERED_KEYSECRET",)
    (problem,) = name_problems(settings)
    assert "did you mean METERED_KEY_SECRET?" in str(problem)


@pytest.mark.parametrize(
    "given",
    [
        {"KEY_ID": SECRET, "KEY_SECRET": ID},
        {"KEY": SECRET},
        {"KEY_ID": ID, "KEY_SECRET": SECRET, "URL": f"wss://{SECRET}@host"},
        {**PAIR, "SFU_APP_ID": SFU_SECRET, "SFU_SECRET": SFU_SECRET},
    ],
)
def test_what_is_wrong_is_told_at_first_use_without_a_secret(given: dict[str, str]) -> None:
    resources = Resources(lambda: read_settings("METERED", given), LookupError)
    for use in (resources.client, resources.control, lambda: resources.events("x", 1)):
        with pytest.raises(LookupError, match="METERED") as caught:
            use()
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        # (The frame of this test has them.)
        del told.stack[0]
        text = "".join(told.format())
        assert not any(secret in text for secret in SECRETS), text


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (7, TypeError, "must return a dict"),
        ("eyJ.a.b", TypeError, "or None, not str"),
        ([("peer_id", "ann")], TypeError, "must return a dict"),
        ({}, TypeError, "returned what makes no token"),
        ({"peer_id": "é"}, ValueError, "returned what makes no token"),
        ({"peer_id": "ann", "rooms": ["x"]}, TypeError, "rooms"),
        ({"peer_id": "ann", "channels": "x"}, TypeError, "channels must be a list"),
        ({"peer_id": "ann", "secret": "x"}, TypeError, "secret"),
        ({7: "ann"}, TypeError, "returned what makes no token"),
    ],
)
def test_what_makes_no_token(returned: Any, error: type[Exception], words: str) -> None:
    settings = read_settings("METERED", {**PAIR, "TOKEN": lambda: returned})
    resources = Resources(lambda: settings)
    with pytest.raises(error, match=words) as caught:
        resources.token(resources.token_function()())
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    del told.stack[0]
    assert SECRET not in "".join(told.format())


def test_a_token_function_may_be_named_or_given() -> None:
    for token in (decide, f"{__name__}.decide", f"{__name__}:decide"):
        assert token_function(read_settings("METERED", {"TOKEN": token})) is decide
    with pytest.raises(ValueError, match="METERED: TOKEN must name the function"):
        token_function(read_settings("METERED", {}))


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        "eyJHUSH.eyJHUSH.HUSH",
        "HUSHHUSH",
        "os.HUSHHUSH",
        "os:HUSHHUSH",
        "HUSH:x",
        "HUSH/+x=",
    ],
)
def test_a_secret_in_place_of_the_token_function_stays_here(secret: str) -> None:
    for given in (secret, secret.encode(), [secret]):
        settings = read_settings("METERED", {**PAIR, "TOKEN": given})
        resources = Resources(lambda settings=settings: settings, LookupError)
        for use in (lambda: token_function(settings), resources.token_function):  # noqa: B023
            with pytest.raises((TypeError, ValueError, LookupError), match="TOKEN") as caught:
                use()
            seen = frames_of(caught.value)
            assert not any(hushed in seen for hushed in ("HUSH", SECRET))
        (problem,) = value_problems(settings)
        assert problem.code == "E008"
        assert not any(hushed in str(problem) for hushed in ("HUSH", SECRET))


def test_a_module_of_the_token_function_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_shop").mkdir()
    (tmp_path / "a_shop" / "tokens.py").write_text("import no_such_library_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    settings = read_settings("METERED", {"TOKEN": "a_shop.tokens.decide"})
    with pytest.raises(ValueError, match=r"'a_shop\.tokens' cannot be imported: No module"):
        token_function(settings)


@pytest.mark.parametrize("given", [{}, {"KEY": KEY}])
def test_what_needs_the_secret_key_says_so(given: dict[str, str]) -> None:
    resources = Resources(lambda: read_settings("METERED", given), LookupError)
    for use in (resources.control, lambda: resources.token({"peer_id": "ann"})):
        with pytest.raises(LookupError, match="KEY_ID and KEY_SECRET must be set"):
            use()


def test_a_page_is_told_no_secret_and_no_tag_ends_its_script() -> None:
    given = {**PAIR, "KEY": KEY, "SFU_APP_ID": "app", "SFU_SECRET": SFU_SECRET}
    resources = Resources(lambda: read_settings("METERED", {**given, "URL": "https://h.example"}))
    minted = resources.token({"peer_id": "</script><!--'&"})
    text = html_json(resources.page_config(minted))
    assert '"url": "wss://h.example"' in text
    assert KEY in text
    assert minted["token"] in text
    assert not any(secret in text for secret in SECRETS)
    assert not set("<>&'").intersection(html_json({"x": "</script><!--'&\u2028"}))
    assert resources.page_config(None) == {
        "url": "wss://h.example", "key": KEY, "token": None, "expires_at": None
    }  # fmt: skip

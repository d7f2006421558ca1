"""Check keys and secrets by their form, and cut them out of whatever is shown."""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "ScrubbedError",
    "check_api_key",
    "check_key_pair",
    "check_secret",
    "check_sfu_app",
    "check_token",
    "clear_locals",
    "cut_secrets",
    "hides_arguments",
    "scrub",
    "scrubbed",
    "scrubbed_cause",
]

P = ParamSpec("P")
R = TypeVar("R")
MAX_CAUSE = 500
"""Characters of another library's error that the cause of ours shows."""
_SECRETS = re.compile(
    r"""(?ix)
    ( [?&](?:key|(?:access_)?token|(?:project)?apiKey|secret(?:Key)?|password|credential)= )
        [^&\s"'\\]+                                                        # query parameters
  | ( \b(?:Bearer|Basic)\s+ ) [^\s"',}\\]+                                 # Authorization
  | ( \b(?:pk_live_|sk_secret_|sk_live_|sfu_secret_) ) \w+                 # keys by their form
  | ( \beyJ ) [\w-]+ \. [\w-]+ \. [\w-]*                                    # tokens
  | ( \ba=ice-pwd: ) [^\s\\]+                                              # SDP
  | ( ://? ) (?!user:password@) [^/@\s]+ (?=@)    # user:password@host, but where a remedy says so
  | ( \b(?:stun|turn)s?: ) [^/@\s"'\\]+ (?=@)                              # turn:user:password@
    """
)

_SECRET_NAMES = frozenset(
    ("apikey", "authorization", "credential", "password", "secret", "secretkey", "token")
)
"""Names, in lower case, of what is secret in an answer of the services."""


@dataclass(frozen=True)
class _Kind:
    """A kind of key or secret: its name, the way it is recognised, the slot it belongs to."""

    name: str
    form: re.Pattern[str]
    slot: str


_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_QUOTATION_MARK = re.compile("[\"'`\\u2018-\\u201f\xab\xbb]")
_PUBLISHABLE = _Kind(
    "a publishable key (pk_live_…)",
    re.compile("pk_.+"),
    "api_key=… of SignallingClient and MeteredPeer, or METERED_KEY",
)
_KEY_ID = _Kind(
    "the id of a secret key (sk_id_…)",
    re.compile("sk_id_.+"),
    "key_id of ControlPlane and mint_token, or METERED_KEY_ID",
)
_KEY_SECRET = _Kind(
    "the secret of a secret key (sk_secret_…)",
    re.compile("sk_secret_.+"),
    "secret of ControlPlane and mint_token, or METERED_KEY_SECRET, on your server",
)
_OLD_SECRET = _Kind(
    "a secret key of the old form (sk_live_…)",
    re.compile("sk_(?!id_|secret_).+"),
    "nothing any more: make a pair, sk_id_… and sk_secret_…, in the dashboard",
)
_SFU_SECRET = _Kind(
    "the secret of an SFU app",
    re.compile("sfu_secret_.+"),
    "secret=… of SfuClient and SfuApi, or METERED_SFU_SECRET",
)
_JWT = _Kind(
    "a token",
    re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*", re.ASCII),
    "token_provider=… of SignallingClient and MeteredPeer",
)
_KINDS = (_PUBLISHABLE, _KEY_ID, _KEY_SECRET, _OLD_SECRET, _SFU_SECRET, _JWT)
"""The kinds that can be told by their form. (The real SFU's and TURN's secrets have none.)"""


def check_api_key(owner: str, name: str, value: object) -> str:
    """Return a publishable key; ``ValueError``, without it, for anything else."""
    problem = _copied_badly(value)
    if problem is None and isinstance(value, str):
        if _PUBLISHABLE.form.fullmatch(value):
            return value
        problem = _other_kind(value) or "is not a publishable key: those begin with pk_live_"
        problem += (
            "; clients connect with a publishable key, or with a token: "
            "token_provider=… and mint_token()"
        )
    del value  # no frame of the traceback shows it
    raise ValueError(f"{owner}: {name} {problem}")


def check_token(value: object) -> str:
    """Return a token; ``ValueError``, without it, for what has not the form of one."""
    problem = _copied_badly(value)
    if problem is None and isinstance(value, str):
        if _TOKEN.fullmatch(value):
            return value
        problem = _other_kind(value) or "is no token: those are three parts with dots in between"
        problem += "; make one with mint_token() or ControlPlane.mint_token(), on your server"
    elif isinstance(value, str) and value.startswith("Bearer "):
        problem = 'begins with "Bearer": pass the token alone'
    del value  # no frame of the traceback shows it
    raise ValueError(problem)


def check_secret(owner: str, name: str, value: object) -> str:
    """Return a key or secret of no known form; ``ValueError``, without it, for another's."""
    problem = _copied_badly(value)
    if problem is None and isinstance(value, str):
        problem = _other_kind(value)
        if problem is None:
            return value
    del value  # no frame of the traceback shows it
    raise ValueError(f"{owner}: {name} {problem}")


def check_sfu_app(owner: str, app_id: object, secret: object, names: Sequence[str]) -> None:
    """Check the id and the secret of an SFU app; ``ValueError``, without them, if they are none.

    ``names`` are those of the two values, for the error.
    """
    problems = [_copied_badly(value) for value in (app_id, secret)]
    problems[0] = problems[0] or _other_kind(app_id)
    problems[1] = problems[1] or _other_kind(secret, _SFU_SECRET)
    if app_id == secret and not any(problems):
        problems[1] = "is the same text as the app id: it is another one"
    del app_id, secret  # no frame of the traceback shows them
    for name, problem in zip(names, problems, strict=True):
        if problem is not None:
            raise ValueError(f"{owner}: {name} {problem}")


def check_key_pair(
    owner: str, key_id: object, secret: object, names: Sequence[str] = ("key_id", "secret")
) -> tuple[str, str]:
    """Return the id and the secret of a pair; ``ValueError``, without the secret, if it is none.

    ``names`` are those of the two values, for the error.
    """
    problems = [_copied_badly(value) for value in (key_id, secret)]
    if isinstance(key_id, str) and isinstance(secret, str) and not any(problems):
        if key_id.startswith("sk_secret_") or secret.startswith("sk_id_"):
            problems[0] = f"(sk_id_…) and {names[1]} (sk_secret_…) are swapped"
        else:
            problems = [_other_kind(key_id, _KEY_ID), _other_kind(secret, _KEY_SECRET)]
            if not any(problems):
                return key_id, secret
    del key_id, secret  # no frame of the traceback shows them
    name, problem = next((n, p) for n, p in zip(names, problems, strict=True) if p is not None)
    raise ValueError(
        f"{owner}: {name} {problem}; {owner} takes the two parts of a secret key, "
        "sk_id_… and sk_secret_…"
    )


def _copied_badly(value: object) -> str | None:
    """Say what is wrong with a key as a text, without it; ``None`` if it could be one."""
    if not isinstance(value, str) or not value:
        kind = "an empty string" if value == "" else type(value).__name__
        return f"must be a non-empty string, from the service's dashboard, not {kind}"
    for what, found in (
        ("a line break", "\r" in value or "\n" in value),
        ("a quotation mark", bool(_QUOTATION_MARK.search(value))),
        ("a space", any(char.isspace() for char in value)),
        ("a character that keys do not have", not value.isascii() or not value.isprintable()),
    ):
        if found:
            return f"contains {what}; was it copied whole, and nothing but it?"
    return None


def _other_kind(value: object, own: _Kind | None = None) -> str | None:
    """Say of which other kind a key is, and where it belongs; ``None`` where no form tells."""
    for kind in _KINDS if isinstance(value, str) else ():
        if kind.form.fullmatch(str(value)):
            return None if kind is own else f"is {kind.name}, which belongs to {kind.slot}"
    return None


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
"""What forges lines of a log, steers a terminal, or turns the direction of writing."""


def scrubbed(value: Any) -> Any:
    """Return decoded JSON with :func:`cut_secrets` applied to every text in it.

    Values whose name says that they are secret are cut out whole.
    """
    if isinstance(value, str):
        return cut_secrets(value)
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {
            key: "…" if isinstance(item, str) and key.lower() in _SECRET_NAMES else scrubbed(item)
            for key, item in value.items()
        }
    return value


def scrub(text: str) -> str:
    """Return others' text as a log or an error may show it: on one line, without secrets."""
    return _CONTROLS.sub(" ", cut_secrets(text))


def cut_secrets(text: str) -> str:
    """Return ``text`` with keys, tokens, passwords and Authorization values cut out."""
    return _SECRETS.sub(lambda match: next(g for g in match.groups() if g is not None) + "…", text)


class ScrubbedError(Exception):
    """Stands for another library's error as the cause of ours: its class and text, scrubbed."""


def scrubbed_cause(error: BaseException, hide: Callable[[str], str] = str) -> ScrubbedError:
    """Return what can be shown of an error, to be the cause of another.

    The error itself would carry URLs, headers and frames, in its attributes and in the local
    variables of its traceback.

    Args:
        error: The error.
        hide: Cuts out of its text what :func:`scrub` does not recognise.
    """
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return ScrubbedError(f"{name}: {scrub(hide(str(error)))[:MAX_CAUSE]}")


def clear_locals(error: BaseException) -> None:
    """Clear the local variables of the frames in an error's traceback, and in those of its chain.

    Pages of frameworks and crash reporters show them. Frames that still run keep theirs: so whoever
    calls this has no secret in its own.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def hides_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that takes secrets: no frame of what it raises shows any."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            clear_locals(error)
            raise

    return call

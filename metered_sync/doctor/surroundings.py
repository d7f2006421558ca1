"""Examine this machine: Python, versions, extras, codecs, proxies, networks; and the keys' form."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import socket
import sys

from metered_sync._version import __version__
from metered_sync.doctor.outcome import Outcome, failed, ok, warning
from metered_sync.doctor.patient import Patient
from metered_sync.doctor.settings import MESSAGING, VARIABLES, Settings
from metered_sync.engine.network.certificates import Authorities
from metered_sync.engine.network.proxies import proxy_for
from metered_sync.wire.urls import check_origin, is_loopback

__all__ = ["NO_NETWORK", "examine_environment", "examine_keys", "has_network", "missing_webrtc"]

EXTRAS = {
    "webrtc": ("aiortc", "av", "numpy"),
    "local": ("aiohttp", "cryptography", "ifaddr", "pylibsrtp", "OpenSSL"),
    "cli": ("rich",),
    "notebook": ("ipywidgets", "matplotlib"),
    "socks": ("socks", "python_socks"),
    "speed": ("msgspec", "uvloop"),
}
"""The modules of each extra."""
VERSIONS = ("aiortc", "aioice", "av", "websockets", "requests")
"""Distributions whose version matters in a report."""
CODECS = ("libvpx", "libx264", "libopus")
"""The encoders that WebRTC takes from FFmpeg."""
NO_NETWORK = "connect this machine to a network: it has no interface but the loopback one"
_ELSEWHERE = (
    (socket.AF_INET, ("192.0.2.1", 9)),
    (socket.AF_INET6, ("2001:db8::1", 9)),
)
"""Addresses for documentation (RFC 5737, RFC 3849): to them a route is looked up, no more."""


def has_network() -> bool:
    """Return whether there is a way to anywhere but this machine. Nothing is sent."""
    for family, address in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)  # which for UDP looks for a route
                return True
        except OSError:
            pass
    return False


def missing_webrtc() -> str:
    """Return the modules of the ``webrtc`` extra that are missing, in words; or nothing."""
    return ", ".join(name for name in EXTRAS["webrtc"] if not _there(name))


def examine_environment(patient: Patient) -> Outcome:
    """Name Python, versions, extras, codecs and proxies; warn of what will be missed."""
    settings = patient.settings
    extras = [name for name, modules in EXTRAS.items() if all(map(_there, modules))]
    versions = [f"{name} {found}" for name in VERSIONS if (found := _version(name))]
    facts = [
        f"metered_sync {__version__} on {platform.python_implementation()} "
        f"{platform.python_version()} ({sys.platform})",
        f"extras: {', '.join(extras) or 'none'}",
        ", ".join(versions),
    ]
    if not missing_webrtc():
        codecs = _codecs()
        facts.append(f"codecs: {', '.join(codecs) or 'none'}")
    try:
        proxy = proxy_for(settings.control_url, socks="python_socks")
        facts.append("no proxy" if proxy is None else str(proxy))
        authorities = Authorities.choose(settings.ca_file)
        if authorities.path is not None:
            authorities.context()
            facts.append(f"certificates: {authorities.source}={authorities.path}")
    except ValueError as error:
        return failed(str(error), "mend that variable, or unset it")
    what = "; ".join(facts)
    if not has_network() and not _is_local(settings):
        return warning(f"{what}; no network", NO_NETWORK)
    if missing_webrtc():
        remedy = "for rooms and media: pip install 'metered_sync[webrtc]'"
        return warning(f"{what}; {missing_webrtc()} missing", remedy)
    return ok(what)


def examine_keys(patient: Patient) -> Outcome:
    """Name the keys that are set, by variable and kind; say which are of the wrong kind."""
    settings = patient.settings
    problems = settings.problems()
    if problems:
        whats = "; ".join(problem.what for problem in problems)
        return failed(whats, "; ".join(problem.remedy for problem in problems))
    for name, secure in (("url", "wss"), ("sfu_url", "https")):
        value = settings.get(name)
        if value is not None:
            try:
                check_origin(value, secure=secure, name=VARIABLES[name])
            except ValueError as error:
                return failed(str(error), f"set {VARIABLES[name]} to an origin, or unset it")
    kinds = [words for there, words in _kinds(settings) if there]
    if not kinds:
        return failed(
            "there is no key",
            f"set {MESSAGING}, from the dashboard, or try a local cloud (--local)",
        )
    return ok(", ".join(kinds))


def _kinds(settings: Settings) -> list[tuple[bool, str]]:
    turn = settings.get("turn_app") is not None
    return [
        (settings.is_one_peer, "a token"),
        (settings.get("key") is not None, "METERED_KEY (a publishable key)"),
        (settings.has_pair, "METERED_KEY_ID and METERED_KEY_SECRET (a secret key)"),
        (settings.has_sfu, "METERED_SFU_APP_ID and METERED_SFU_SECRET (an SFU app)"),
        (
            turn and settings.get("turn_api_key") is not None,
            "METERED_TURN_APP and METERED_TURN_API_KEY (a TURN app)",
        ),
        (
            turn and settings.get("turn_secret_key") is not None,
            "METERED_TURN_SECRET_KEY",
        ),
    ]


def _is_local(settings: Settings) -> bool:
    from urllib.parse import urlsplit

    try:
        return is_loopback(urlsplit(settings.url).hostname)
    except ValueError:
        return False


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _codecs() -> list[str]:
    import av

    return [name for name in CODECS if name in av.codecs_available]

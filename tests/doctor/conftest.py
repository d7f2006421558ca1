"""What the doctor's tests share: an environment without keys or proxies of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from metered_sync.local import LocalCloud
from tests.support.coturn import coturn

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        own = name.startswith("METERED_") and not name.startswith("METERED_SYNC_")
        if own or name.lower().endswith("_proxy") or name in CERTIFICATES:
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def turn_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a coturn, over UDP and TCP."""
    with coturn(tmp_path_factory.mktemp("coturn")) as port:
        yield port


@pytest.fixture(scope="module")
def doctors_cloud() -> Iterator[LocalCloud]:
    """A local cloud without limits, whose faults a test takes back."""
    with LocalCloud(limits=False) as cloud:
        yield cloud

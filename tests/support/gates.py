"""Serve a gate on a port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metered_sync import SfuGate
from metered_sync.local import LocalCloud
from tests.support.wsgi import served


def gate_of(cloud: LocalCloud, **options: Any) -> SfuGate:
    """Return a gate to a local cloud's SFU."""
    keys = {cloud.key_id: cloud.key_secret}
    return SfuGate(cloud.sfu_app_id, cloud.sfu_secret, keys, url=cloud.http_url, **options)


@contextmanager
def served_gate(gate: SfuGate) -> Iterator[str]:
    """Serve a gate below a path; yield its address."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith("/my/sfu")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/my/sfu", path[len("/my/sfu") :]
        return gate.wsgi(environ, start_response)

    try:
        with served(application) as url:
            yield f"{url}/my/sfu"
    finally:
        gate.close()

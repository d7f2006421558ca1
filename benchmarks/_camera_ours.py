"""Send a film with this library, as it is encoded or decoded and encoded: for ``camera.py``."""

from __future__ import annotations

import json
import sys
import time

from metered_sync import MeteredPeer, from_file

url, token, film, seconds, how = sys.argv[1:]
with (
    from_file(film, loop=True, encoded=how == "encoded") as source,
    MeteredPeer(url=url, token_provider=token, ice_servers=[]) as peer,
):
    peer.add_track(source.video)
    peer.join("camera")
    print(flush=True)
    sys.stdin.readline()
    cpu, began = time.process_time(), time.monotonic()
    time.sleep(float(seconds))
    print(json.dumps((time.process_time() - cpu) / (time.monotonic() - began)), flush=True)

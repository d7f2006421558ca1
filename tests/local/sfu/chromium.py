"""A page in a headless Chromium that uses the SFU as a web application would."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from playwright.async_api import async_playwright

from tests.conftest import need
from tests.local.sfu.clients import APP, SECRET, Server

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
]

PAGE = """<!doctype html><title>SFU</title><script>
const pc = new RTCPeerConnection({iceServers: []});
let base, secret, sessionId;
const received = {};
pc.ontrack = ({track, transceiver}) => {
  const video = document.createElement('video');
  video.muted = video.autoplay = true;
  video.srcObject = new MediaStream([track]);
  document.body.append(video);
  received[transceiver.mid] = video;
};

async function call(method, path, body) {
  const response = await fetch(base + path, {
    method,
    headers: {'Authorization': 'Bearer ' + secret, 'Content-Type': 'application/json'},
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(response.status + ' ' + JSON.stringify(answer));
  return answer;
}

async function offer() {
  await pc.setLocalDescription(await pc.createOffer());
  return pc.localDescription;
}

function connected() {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (pc.connectionState === 'connected') resolve();
      if (pc.connectionState === 'failed') reject(new Error('failed'));
    };
    pc.onconnectionstatechange = check;
    setTimeout(() => reject(new Error('no connection: ' + pc.connectionState)), 8000);
    check();
  });
}

async function connect(metadata) {
  const answer = await call('POST', '/session/new', {
    sessionDescription: await offer(), metadata});
  sessionId = answer.sessionId;
  await pc.setRemoteDescription(answer.sessionDescription);
  await connected();
  return sessionId;
}

async function camera(constraints) {
  const stream = await navigator.mediaDevices.getUserMedia(constraints || {video: true});
  return stream.getTracks()[0];
}

async function publish(track, name, options) {
  const transceiver = pc.addTransceiver(track, {direction: 'sendonly', ...options});
  return publishOn(transceiver, track, name);
}

async function publishOn(transceiver, track, name) {
  const sessionDescription = await offer();
  const answer = await call('POST', `/session/${sessionId}/track/publish`, {
    tracks: [{trackId: track.id, mid: transceiver.mid, customTrackName: name}],
    sessionDescription});
  await pc.setRemoteDescription(answer.sessionDescription);
  return {sessionId, trackId: track.id, mid: transceiver.mid};
}

async function subscribe(tracks) {
  const old = new Set(pc.getTransceivers().map(t => t.mid));
  const answer = await call('POST', `/session/${sessionId}/track/subscribe`, {
    tracks: tracks.map(t => ({remoteSessionId: t.sessionId, remoteTrackId: t.trackId}))});
  await pc.setRemoteDescription(answer.sessionDescription);
  await pc.setLocalDescription(await pc.createAnswer());
  if (answer.immediateRenegotiationRequired)
    await call('PUT', `/session/${sessionId}/renegotiate`, {
      sessionDescription: pc.localDescription});
  return pc.getTransceivers().map(t => t.mid).filter(mid => mid !== null && !old.has(mid));
}

async function closeTracks(ids) {
  const answer = await call('POST', `/session/${sessionId}/track/close`, {
    tracks: ids.map(trackId => ({trackId})), sessionDescription: await offer()});
  await pc.setRemoteDescription(answer.sessionDescription);
  return answer.success;
}

async function statistics(mid, type) {
  const transceiver = pc.getTransceivers().find(t => t.mid === mid);
  const end = type === 'inbound-rtp' ? transceiver.receiver : transceiver.sender;
  for (const item of (await end.getStats()).values())
    if (item.type === type) return item;
  return {};
}

// Resolves when `more` further frames were decoded from the section.
async function decoded(mid, more) {
  const count = async () => (await statistics(mid, 'inbound-rtp')).framesDecoded || 0;
  const start = await count(), end = performance.now() + 8000;
  while (await count() < start + more) {
    if (performance.now() > end)
      throw new Error(`${mid}: only ${await count() - start} of ${more} frames`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return count();
}
</script>"""


class Page:
    """The page above, in a tab of its own."""

    def __init__(self, page: Any) -> None:
        self._page = page

    async def run(self, script: str, **names: object) -> Any:
        """Run the body of an async function, with these names bound to values."""
        bindings = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        return await self._page.evaluate(f"(async () => {{ {bindings} {script} }})()")


@contextlib.asynccontextmanager
async def browser(server: Server, tabs: int = 1) -> AsyncIterator[list[Page]]:
    """Open pages of an origin that is not the SFU's."""
    path = need("chromium", "chromium")

    async def index(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", index)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with async_playwright() as playwright:
            chrome = await playwright.chromium.launch(
                executable_path=path, headless=True, args=FLAGS
            )
            try:
                pages = []
                for _ in range(tabs):
                    page = await chrome.new_page()
                    await page.goto(f"http://localhost:{runner.addresses[0][1]}/")
                    pages.append(Page(page))
                    await pages[-1].run(
                        "base = url; secret = token;",
                        url=f"{server.origin}/api/sfu/{APP}",
                        token=SECRET,
                    )
                yield pages
            finally:
                await chrome.close()
    finally:
        await runner.cleanup()

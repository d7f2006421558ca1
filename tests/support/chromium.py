"""Pages in a headless Chromium that use the SFU as a web application would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from tests.conftest import need

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
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]

# Chromium (156) never finds candidates on a page's first peer connection if that is rolled back
# before it has found any, as offers that cross make it do. So the first one is this.
WARM_UP = """(async () => {
  const pc = new RTCPeerConnection();
  const found = new Promise(resolve => { pc.onicecandidate = resolve; });
  pc.createDataChannel('');
  await pc.setLocalDescription();
  await found;
  pc.close();
})()"""

PAGE = """<!doctype html><title>SFU</title><script>
let base, secret, sessionId, pc, received;

// Begins anew, without a session.
function reset() {
  if (pc) pc.close();
  pc = new RTCPeerConnection({iceServers: []});
  received = {};
  pc.ontrack = ({track, transceiver}) => {
    const video = document.createElement('video');
    video.muted = video.autoplay = true;
    video.srcObject = new MediaStream([track]);
    document.body.append(video);
    received[transceiver.mid] = video;
  };
}
reset();

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
    setTimeout(() => reject(new Error('no connection: ' + pc.connectionState)), 20000);
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

// Resolves to a track of that name and kind, in any session, once there is one.
async function find(name, kind) {
  for (const end = performance.now() + 20000; performance.now() < end;) {
    for (const {sessionId} of await call('GET', '/sessions'))
      for (const track of await call('GET', `/session/${sessionId}/tracks`).catch(() => []))
        if (track.customTrackName === name && track.trackKind === kind) return track;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  throw new Error(`nobody publishes ${kind} as ${name}`);
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
  const start = await count(), end = performance.now() + 20000;
  while (await count() < start + more) {
    if (performance.now() > end)
      throw new Error(`${mid}: only ${await count() - start} of ${more} frames`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return count();
}

// Resolves to what is heard from a section (1 is full scale), once it is this loud.
async function heard(mid, loudness) {
  const context = new AudioContext(), analyser = context.createAnalyser();
  try {
    analyser.fftSize = 4096;
    context.createMediaStreamSource(received[mid].srcObject).connect(analyser);
    await context.resume();
    const samples = new Float32Array(analyser.fftSize);
    const level = () => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    for (const end = performance.now() + 20000; performance.now() < end;) {
      await new Promise(resolve => setTimeout(resolve, 50));
      analyser.getFloatTimeDomainData(samples);
      if (level() > loudness) return {rate: context.sampleRate, samples: [...samples]};
    }
    throw new Error(`${mid}: nothing louder than ${level()} is heard`);
  } finally {
    await context.close();
  }
}

// What the page shows of a section now, small and grey.
function shown(mid) {
  const canvas = new OffscreenCanvas(32, 18), context = canvas.getContext('2d');
  context.drawImage(received[mid], 0, 0, 32, 18);
  const {data} = context.getImageData(0, 0, 32, 18);
  return [...data].filter((_, index) => index % 4 === 1);
}

// The codec of a section that sends, or receives.
async function codec(mid) {
  const report = await pc.getStats();
  const stream = [...report.values()].find(item => item.mid === mid && item.codecId);
  return report.get(stream.codecId).mimeType;
}
</script>"""


class Page:
    """A page, in a tab of its own."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self.errors: list[str] = []
        """What the page did not catch, and what its content security policy refused."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self._hear(line.text))

    def _hear(self, line: str) -> None:
        if "Content Security Policy" in line:
            self.errors.append(line)

    async def run(self, script: str, **names: object) -> Any:
        """Run the body of an async function, with these names bound to values."""
        bindings = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        return await self._page.evaluate(f"(async () => {{ {bindings} {script} }})()")

    async def expose(self, name: str, function: Callable[..., object]) -> None:
        """Let the page call a function of ours."""
        await self._page.expose_function(name, function)

    async def go(self, url: str) -> None:
        """Show another page."""
        await self._page.goto(url)

    async def reload(self) -> None:
        """Load the page again, as a user would."""
        await self._page.reload()
        await self._page.evaluate(WARM_UP)

    async def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        await self._page.keyboard.press(key)

    async def look(self, width: int, height: int, colours: str = "light") -> None:
        """Show the page in a window of this size, to somebody who likes ``light`` or ``dark``."""
        await self._page.set_viewport_size({"width": width, "height": height})
        await self._page.emulate_media(color_scheme=colours)

    async def crash(self) -> None:
        """End the page's process: none of its code runs any more."""
        crashed = asyncio.Event()
        self._page.on("crash", lambda *_: crashed.set())
        with contextlib.suppress(PlaywrightError):
            await self._page.goto("chrome://crash")
        await crashed.wait()

    async def close(self) -> None:
        """Close the tab, as a user would."""
        await self._page.close()


class Browser:
    """A Chromium, and a web server for its pages."""

    def __init__(self, chrome: Any, origin: str, html: dict[str, str]) -> None:
        self.chrome = chrome
        self._origin = origin
        self._html = html

    async def open(self, html: str) -> Page:
        """Show a page, of an origin that is not the SFU's."""
        path = f"/{len(self._html)}"
        self._html[path] = html
        page = await self.chrome.new_page()
        await page.goto(self._origin + path)
        await page.evaluate(WARM_UP)
        return Page(page)

    async def visit(self, url: str) -> Page:
        """Show a page of another server."""
        page = Page(await self.chrome.new_page())
        await page.go(url)
        return page

    async def open_client(self, url: str, app_id: str, secret: str) -> Page:
        """Show the page above, which has got no session yet."""
        page = await self.open(PAGE)
        await page.run("base = url; secret = token;", url=f"{url}/api/sfu/{app_id}", token=secret)
        return page


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser."""
    path = need("chromium", "chromium")
    html: dict[str, str] = {}

    async def show(request: web.Request) -> web.Response:
        if request.path not in html:
            raise web.HTTPNotFound
        return web.Response(text=html[request.path], content_type="text/html")

    app = web.Application()
    app.router.add_get("/{any}", show)
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
                yield Browser(chrome, f"http://localhost:{runner.addresses[0][1]}", html)
            finally:
                await chrome.close()
    finally:
        await runner.cleanup()

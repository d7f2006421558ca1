"""A page in a headless Chromium that is the other peer: a bare RTCPeerConnection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from metered_sync.wire.signals import Signal
from tests.support.chromium import Page, chromium
from tests.support.connections import Side

PAGE = """<!doctype html><title>peer</title><script>
// The pattern of the WebRTC specification ("perfect negotiation"), as web applications have it.
let polite, making = false, ignoring = false, settingAnswer = false, hold = null;
const log = [], videos = {}, states = [];
const pc = new RTCPeerConnection({iceServers: []});
const post = data => hold ? hold.push(data) : send(data);
function release() { const held = hold; hold = null; held.forEach(post); }

pc.onconnectionstatechange = () => states.push(pc.connectionState);
pc.onicecandidate = ({candidate}) => post({type: 'rtc-ice', candidate});
pc.onnegotiationneeded = async () => {
  try {
    making = true;
    await pc.setLocalDescription();
    post({type: 'rtc-description', description: pc.localDescription});
  } catch (error) { log.push('offer: ' + error); } finally { making = false; }
};
pc.ontrack = ({track, transceiver, streams}) => {
  const video = document.createElement('video');
  video.muted = video.autoplay = true;
  video.srcObject = new MediaStream([track]);
  document.body.append(video);
  videos[transceiver.mid] = {id: track.id, streams: streams.map(s => s.id), kind: track.kind};
};
const opened = [];
pc.ondatachannel = ({channel}) => {
  opened.push(channel);
  channel.onmessage = ({data}) => channel.send('echo ' + data);
};

async function take({type, description, candidate}) {
  try {
    if (type === 'rtc-description') {
      const ready = !making && (pc.signalingState === 'stable' || settingAnswer);
      ignoring = !polite && description.type === 'offer' && !ready;
      if (ignoring) return;
      settingAnswer = description.type === 'answer';
      await pc.setRemoteDescription(description);
      settingAnswer = false;
      if (description.type === 'offer') {
        await pc.setLocalDescription();
        post({type, description: pc.localDescription});
      }
    } else await pc.addIceCandidate(candidate);
  } catch (error) { if (!ignoring) log.push(type + ': ' + error); }
}

async function media(constraints) {
  return (await navigator.mediaDevices.getUserMedia(constraints)).getTracks();
}

async function camera(...kinds) {
  const stream = new MediaStream(), senders = [];
  for (const kind of kinds) {
    const [track] = await media({[kind]: true});
    stream.addTrack(track);
    senders.push(track);
  }
  return senders.map(track => pc.addTrack(track, stream));
}

// Resolves when further frames, or packets of sound, have come in a section.
async function plays(mid, more = 5) {
  const transceiver = pc.getTransceivers().find(t => t.mid === mid);
  const count = async () => {
    for (const item of (await transceiver.receiver.getStats()).values())
      if (item.type === 'inbound-rtp')
        return (item.kind === 'video' ? item.framesDecoded : item.packetsReceived) || 0;
    return 0;
  };
  const start = await count(), end = performance.now() + 15000;
  while (await count() < start + more) {
    if (performance.now() > end) throw new Error(`${mid}: ${await count() - start} of ${more}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

// The codecs in which these sections are received.
async function codecs(mids) {
  const report = await pc.getStats();
  return [...report.values()]
    .filter(item => item.type === 'inbound-rtp' && mids.includes(item.mid))
    .map(item => report.get(item.codecId).mimeType);
}

function receiving() {
  return pc.getTransceivers()
    .filter(t => ['sendrecv', 'recvonly'].includes(t.currentDirection)).map(t => t.mid);
}
</script>"""


class PeerPage:
    """The page, as the peer of a side."""

    def __init__(self, page: Page, side: Side) -> None:
        self.side = side
        self.run = page.run
        side.carry = self._carry

    async def _carry(self, _side: Side, data: dict[str, Any], _signal: Signal) -> None:
        # (nobody waits for what comes of it, as with a server in between)
        await self.run("take(data); return null", data=data)

    async def complaints(self) -> list[str]:
        """Return what went wrong in the page."""
        return list(await self.run("return log"))


@contextlib.asynccontextmanager
async def peer_page(side: Side) -> AsyncIterator[PeerPage]:
    """Open the page, connected to a side by signalling; close both in the end."""
    async with chromium() as browser:
        page = await browser.open(PAGE)
        await page.expose("send", side.take)
        await page.run("polite = gives_way", gives_way=not side.link.polite)
        try:
            yield PeerPage(page, side)
        finally:
            await side.link.aclose()

// Sound and pictures from member to member: docs/protocol/rooms.md. One connection for each other.

import { sleep } from "./signalling.js";

const COURTESY = 1000; // ms in which who was there first waits for the newcomer's offer
const PATIENCE = 15_000; // ms until a connection that is not there yet is made anew

// Chromium (156) finds no candidates, ever, on a page's first connection if an offer that crosses its
// own comes before it has found any. So the first one is this.
export async function warmUp() {
  const pc = new RTCPeerConnection();
  const found = new Promise((resolve) => (pc.onicecandidate = resolve));
  pc.createDataChannel("");
  await pc.setLocalDescription();
  await Promise.race([found, sleep(500)]);
  pc.close();
}

export class Mesh {
  #links = new Map(); // by peer id
  #room; #checking;

  // room: {signalling, tracks (an array, of one stream), stream, onTrack, onEnd}, as Sfu has it.
  constructor(room) {
    this.#room = room;
    this.#checking = setInterval(() => this.#links.forEach((link) => link.check()), 1000);
  }

  // Takes a list of presence. After a reconnect (`first`) all connections are made anew.
  list(joined, left, first) {
    const gone = first ? [...this.#links.keys()] : left.map((one) => one.peerId);
    for (const peer of gone) {
      this.#links.get(peer)?.close();
      this.#links.delete(peer);
    }
    for (const { peerId } of joined)
      if (!this.#links.has(peerId)) this.#links.set(peerId, new Link(peerId, this.#room, !first));
  }

  // Takes the data of a message; says whether it was meant for here.
  take(peer, data) {
    if (data?.type !== "rtc-description" && data?.type !== "rtc-ice") return Boolean(data?.__meteredTrackMeta);
    this.#links.get(peer)?.take(data);
    return true;
  }

  add = (track) => this.#links.forEach((link) => link.add(track));

  // Does nothing: in a mesh nobody is told which tracks are muted.
  update() {}

  close() {
    clearInterval(this.#checking);
    this.#links.forEach((link) => link.close());
  }
}

// The connection to one member: "perfect negotiation" of the WebRTC specification.
class Link {
  #peer; #room; #pc; #ignoring; #since; #restarted; #shown = new Map();
  #queue = Promise.resolve(); // what is being done with the connection: one thing after the other

  constructor(peer, room, waits) {
    this.#peer = peer;
    this.#room = room;
    this.#open();
    if (waits) setTimeout(() => this.#addAll(), COURTESY);
    else this.#addAll();
  }

  #open() {
    this.close();
    const pc = (this.#pc = new RTCPeerConnection({ iceServers: this.#room.signalling.iceServers }));
    this.#since = null;
    pc.onnegotiationneeded = () => this.#enqueue(() => this.#offer(pc));
    pc.onicecandidate = ({ candidate }) =>
      this.#tell({ type: "rtc-ice", candidate: candidate?.toJSON() ?? null });
    pc.ontrack = ({ track, streams: [stream] }) => {
      this.#show(track, stream?.id ?? track.id);
      if (stream) stream.onremovetrack = (event) => this.#hide(event.track);
    };
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "connected") this.#since = this.#restarted = null;
    };
  }

  #show(track, stream) {
    const shown = { peer: this.#peer, stream, track };
    this.#shown.set(track, shown);
    this.#room.onTrack(shown);
  }

  #hide(track) {
    const shown = this.#shown.get(track);
    if (this.#shown.delete(track)) this.#room.onEnd(shown);
  }

  #addAll = () => this.#room.tracks.forEach((track) => this.add(track));

  add(track) {
    const { signalling, stream } = this.#room;
    if (this.#pc.signalingState === "closed") return;
    const senders = this.#pc.getSenders();
    if (senders.some((sender) => sender.track === track)) return;
    const dead = senders.find(({ track: old }) => old?.kind === track.kind && old.readyState === "ended");
    if (dead) return dead.replaceTrack(track); // a camera was unplugged, and is back
    const { id: trackId, kind } = track, metadata = { role: "camera" };
    this.#tell({ __meteredTrackMeta: { trackId, metadata, kind, streamId: stream.id } });
    this.#pc.addTrack(track, stream);
  }

  // Looks after a connection that does not come about, or has failed.
  check() {
    const failed = this.#pc.connectionState === "failed";
    if (failed && !this.#restarted) {
      this.#restarted = true;
      this.#since = performance.now();
      this.#pc.restartIce();
    } else if (this.#since && performance.now() - this.#since > PATIENCE) {
      this.#open();
      this.#addAll();
    }
  }

  take(signal) {
    this.#enqueue(() =>
      signal.type === "rtc-ice" ? this.#takeCandidate(signal) : this.#takeDescription(signal));
  }

  async #offer(pc) {
    if (pc !== this.#pc || pc.signalingState !== "stable") return; // (asked again when it is stable)
    await pc.setLocalDescription();
    this.#describe();
  }

  async #takeDescription({ description }) {
    const offered = description.type === "offer";
    const polite = this.#room.signalling.peerId < this.#peer;
    this.#ignoring = offered && !polite && this.#pc.signalingState !== "stable";
    if (this.#ignoring) return;
    if (!offered) return this.#pc.setRemoteDescription(description);
    this.#addAll();
    try {
      await this.#pc.setRemoteDescription(description); // (takes back an offer of ours)
    } catch { // it is of a connection that was made anew there, of another shape
      this.#open();
      this.#addAll();
      await this.#pc.setRemoteDescription(description);
    }
    await this.#pc.setLocalDescription();
    this.#describe();
  }

  #describe() {
    if (this.#pc.connectionState !== "connected") this.#since ??= performance.now();
    this.#tell({ type: "rtc-description", description: this.#pc.localDescription });
  }

  async #takeCandidate({ candidate }) {
    if (!this.#ignoring) await this.#pc.addIceCandidate(candidate);
  }

  #tell = (data) => this.#room.signalling.send(this.#peer, data).catch(() => {}); // (it has left)

  #enqueue(step) {
    this.#queue = this.#queue.then(step).catch((error) => console.info(`${this.#peer}: ${error}`));
  }

  close() {
    this.#pc?.close();
    [...this.#shown.keys()].forEach((track) => this.#hide(track));
  }
}

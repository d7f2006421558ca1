// A member of a room in a browser: the published client for JavaScript, and what its page plays.
//
// test_rooms_javascript.py puts it into a page, behind the client, and calls its functions.
"use strict";

const PATIENCE = 20000;
const happened = []; // events that nobody has asked for yet
const playing = new Map(); // what plays of each stream, by the stream's id and the kind
const sent = new Map(); // our own streams, by their name here
const channels = new Map(); // data channels, by label
let peer;

async function until(what, check) {
  for (const end = performance.now() + PATIENCE; performance.now() < end;) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`the page waited in vain for ${what}; it had ${JSON.stringify(happened)}`);
}

const say = (event, fields) => happened.push({ event, ...fields });

// Returns the next event of a kind, passing over those with other fields.
function next(event, fields) {
  const wanted = Object.entries({ event, ...fields });
  return until(`${event} ${JSON.stringify(fields)}`, () => {
    const index = happened.findIndex((one) => wanted.every(([key, value]) => one[key] === value));
    return index < 0 ? null : happened.splice(index, 1)[0];
  });
}

function open(url, token) {
  peer = new MeteredPeer.MeteredPeer({
    url,
    tokenProvider: async () => token,
    reconnect: { initialDelayMs: 50, maxDelayMs: 200, jitterRatio: 0 },
  });
  peer.on("peer-joined", ({ peer: remote }) => {
    say("peer-joined", { peer: remote.id, polite: remote.polite });
    follow(remote);
  });
  peer.on("peer-left", ({ peer: remote }) => say("peer-left", { peer: remote.id }));
  peer.on("data", ({ senderPeerId, data, kind }) => say("data", { from: senderPeerId, data, kind }));
  peer.on("state-change", ({ to }) => say("state", { state: to }));
  peer.on("error", ({ err }) => say("error", { error: String(err) }));
}

function follow(remote) {
  remote.on("track", ({ track, streams, metadata }) => {
    play(track, streams[0]);
    const stream = streams.length ? streams[0].id : null;
    say("track", { kind: track.kind, id: track.id, stream, metadata: metadata ?? null });
  });
  remote.on("stream-added", ({ stream, metadata }) =>
    say("stream-added", { stream: stream.id, metadata: metadata ?? null }));
  remote.on("stream-removed", ({ stream }) => say("stream-removed", { stream: stream.id }));
  remote.on("connection-reset", () => say("reset", {}));
  remote.on("negotiation-error", ({ err }) => say("negotiation-error", { error: String(err) }));
  remote.on("data-channel", ({ channel }) => keep(channel));
}

function keep(raw) {
  const channel = new MeteredPeer.DataChannel(raw);
  channels.set(raw.label, channel);
  channel.on("open", () => say("open", { label: raw.label }));
  channel.on("close", () => say("close", { label: raw.label }));
  channel.on("message", ({ data }) => say("message", {
    label: raw.label,
    data: typeof data === "string" ? data : [...new Uint8Array(data)],
  }));
  return channel;
}

const remote = () => peer.remotePeers[0];

// --- sending ---

// Returns a new stream: the fake camera with the fake microphone, or a drawing with a tone.
async function make(name, { width, height, tone }) {
  let stream;
  if (tone) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    let count = 0;
    setInterval(() => {
      context.fillStyle = `hsl(${(count += 25) % 360} 90% 50%)`;
      context.fillRect(0, 0, width, height);
    }, 100);
    stream = canvas.captureStream();
    const audio = new AudioContext(), oscillator = audio.createOscillator();
    const destination = audio.createMediaStreamDestination();
    oscillator.frequency.value = tone;
    oscillator.connect(destination);
    oscillator.start();
    await audio.resume();
    stream.addTrack(destination.stream.getAudioTracks()[0]);
  } else {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width, height }, audio: true });
  }
  // Not scaled down where the machine is busy.
  for (const track of stream.getVideoTracks()) track.contentHint = "detail";
  sent.set(name, stream);
  return stream.id;
}

const track = (name, kind) => sent.get(name).getTracks().find((one) => one.kind === kind);

// --- playing ---

function play(track, stream) {
  const key = `${stream ? stream.id : ""} ${track.kind}`;
  playing.get(key)?.video.remove();
  const video = document.createElement("video");
  video.muted = video.autoplay = true;
  video.srcObject = new MediaStream([track]);
  document.body.append(video);
  playing.set(key, { track, video });
}

const played = (stream, kind) =>
  until(`${kind} of ${stream}`, () => playing.get(`${stream} ${kind}`));

async function framesDecoded(stream) {
  const { track } = await played(stream, "video");
  const receiver = remote()?.pc.getReceivers().find((one) => one.track === track);
  if (!receiver) return 0; // the connection is about to be another one
  for (const item of (await receiver.getStats()).values())
    if (item.type === "inbound-rtp") return item.framesDecoded ?? 0;
  return 0;
}

// Waits until so many more frames of a stream were decoded; returns the picture's size.
async function watch(stream, more) {
  let last = await framesDecoded(stream), count = 0;
  await until(`${more} frames of ${stream}`, async () => {
    const now = await framesDecoded(stream);
    count += now < last ? now : now - last; // (another connection counts anew)
    last = now;
    return count >= more;
  });
  const { video } = await played(stream, "video");
  return until("its picture", () => video.videoWidth && [video.videoWidth, video.videoHeight]);
}

// Waits until the picture of a stream has a width.
const sized = (stream, width) => until(`a width of ${width}`, async () =>
  (await played(stream, "video")).video.videoWidth === width);

// Returns the picture of a stream, 64 pixels wide and 48 high, in grey.
async function picture(stream) {
  const { video } = await played(stream, "video");
  await until("a picture", () => video.readyState >= 2);
  const context = new OffscreenCanvas(64, 48).getContext("2d");
  context.drawImage(video, 0, 0, 64, 48);
  return [...context.getImageData(0, 0, 64, 48).data].filter((_, index) => index % 4 === 1);
}

// Returns what is heard of a stream, once it is loud enough, and the rate.
async function listen(stream) {
  const { video } = await played(stream, "audio");
  const context = new AudioContext(), analyser = context.createAnalyser();
  try {
    analyser.fftSize = 8192;
    context.createMediaStreamSource(video.srcObject).connect(analyser);
    await context.resume();
    const samples = new Float32Array(analyser.fftSize);
    await until(`sound of ${stream}`, () => {
      analyser.getFloatTimeDomainData(samples);
      return Math.abs(samples[0]) > 1e-3 && samples.some((sample) => Math.abs(sample) > 0.05);
    });
    return { rate: context.sampleRate, samples: [...samples] };
  } finally {
    await context.close();
  }
}

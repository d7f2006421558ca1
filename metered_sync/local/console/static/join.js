// The page in which a browser joins a room of the local cloud. What others sent is text, never HTML.

import { Mesh, warmUp } from "./mesh.js";
import { Sfu } from "./sfu.js";
import { randomId, Signalling } from "./signalling.js";

const query = new URLSearchParams(location.search);
const [channel, media] = [query.get("channel") ?? "", query.get("media") ?? "mesh"];
const page = randomId(); // whose token it is, for the server only
const $ = (id) => document.getElementById(id);
const MAX_LINES = 200, MAX_LINE = 4000; // of the chat; characters of a line
const MAX_STREAMS = 8; // of a member, which has a tile for each

let room, held; // what was joined; the room's token
const local = new MediaStream(); // the camera and the microphone
const members = new Map(); // names, by peer id
const tiles = new Map(); // by member and stream; a member without one has the tile of ""

$("channel").textContent = channel;
document.title = `Room ${channel}`;
$("name").value = query.get("name") ?? "";

// --- what is shown ---

// Shows a sentence, or none: "trouble" is about camera and microphone, "lost" about the connection.
function show(text, id = "trouble") {
  $(id).textContent = text;
  $(id).hidden = !text;
}

function nameOf(peer) {
  const name = members.get(peer)?.name;
  return typeof name === "string" && name.trim() ? name.slice(0, 64) : peer.slice(0, 16);
}

const keyOf = (peer, stream) => JSON.stringify([peer, stream]);

function tileOf(peer, stream, name) {
  const key = keyOf(peer, stream);
  if (!tiles.has(key)) {
    const [figure, video] = ["figure", "video"].map((tag) => document.createElement(tag));
    Object.assign(video, { autoplay: true, playsInline: true, srcObject: new MediaStream(), title: peer ?? "" });
    figure.append(Object.assign(document.createElement("figcaption"), { textContent: name }));
    $("tiles").append(figure);
    tiles.set(key, { figure, video, peer, stream });
  }
  return tiles.get(key);
}

function removeTiles(fits) {
  for (const [key, tile] of tiles)
    if (fits(tile)) {
      tile.figure.remove();
      tiles.delete(key);
    }
}

function onTrack({ peer, stream, track }) {
  const others = [...tiles.values()].filter((tile) => tile.peer === peer && tile.stream !== stream);
  if (others.length >= MAX_STREAMS) return;
  const { video, figure } = tileOf(peer, stream, nameOf(peer)), shown = video.srcObject;
  for (const old of shown.getTracks()) if (old.kind === track.kind) shown.removeTrack(old);
  shown.addTrack(track);
  figure.prepend(video);
  removeTiles((tile) => tile.peer === peer && tile.stream === "");
}

function onEnd({ peer, stream, track }) {
  const { video } = tiles.get(keyOf(peer, stream)) ?? {};
  if (!video) return;
  video.srcObject.removeTrack(track);
  if (video.srcObject.getTracks().length) return;
  removeTiles((tile) => tile.peer === peer && tile.stream === stream);
  if (members.has(peer) && ![...tiles.values()].some((tile) => tile.peer === peer)) tileOf(peer, "", nameOf(peer));
}

function onPresence(joined, left, first) {
  const ids = new Set(joined.map((one) => one.peerId));
  const gone = first ? [...members.keys()].filter((peer) => !ids.has(peer)) : left.map((one) => one.peerId);
  for (const { peerId, metadata } of joined) {
    const known = members.has(peerId);
    members.set(peerId, metadata ?? {});
    if (known) continue;
    if (!first) say(nameOf(peerId), "has joined", "event");
    if (![...tiles.values()].some((tile) => tile.peer === peerId)) tileOf(peerId, "", nameOf(peerId));
  }
  for (const peer of gone.filter((one) => members.has(one))) {
    say(nameOf(peer), "has left", "event");
    members.delete(peer);
    removeTiles((tile) => tile.peer === peer && tile.stream === "");
  }
  room.media.list(joined, left, first);
  count();
}

const count = () => ($("status").textContent = members.size === 1 ? "1 other is here" : `${members.size || "no"} others are here`);

function onState(state, why) {
  if (state === "connected") {
    show("", "lost");
    count();
  } else if (state === "reconnecting") {
    const seconds = Math.max(1, Math.round(why / 1000));
    show(`The local cloud does not answer. Is the program that runs it still there? The page tries again in ${seconds} s.`, "lost");
    $("status").textContent = "reconnecting …";
  } else {
    leave();
    show(why);
  }
}

// --- the chat: plain strings, from one to all ---

function say(who, text, kind = "") {
  const line = Object.assign(document.createElement("li"), { className: kind });
  line.append(Object.assign(document.createElement("b"), { textContent: who }), text.slice(0, MAX_LINE));
  const log = $("chat"), atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 30;
  log.append(line);
  if (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

$("say").onsubmit = async (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  try {
    await room.signalling.publish(text);
    say("You", text);
    $("text").value = "";
  } catch (error) {
    say("Not sent:", error.message, "event");
  }
};

// --- camera and microphone ---

const REFUSALS = {
  NotAllowedError: "refused, by you or by the browser's settings for this page",
  NotFoundError: "not there",
  NotReadableError: "in use by another program, or broken",
};
const WORDS = { audio: "microphone", video: "camera" };

// Opens what is wanted; returns a sentence about what there is not.
async function open(kinds) {
  if (!kinds.length) return "";
  if (!navigator.mediaDevices)
    return `This browser lends cameras to secure pages only, and does not count ${location.host} as one: try http://localhost:${location.port}, or another browser. You are in the room without.`;
  try {
    const video = { width: { ideal: 640 }, height: { ideal: 480 } };
    const wanted = Object.fromEntries(kinds.map((kind) => [kind, kind === "video" ? video : true]));
    const got = await navigator.mediaDevices.getUserMedia(wanted);
    for (const track of got.getTracks()) local.addTrack(track);
    return "";
  } catch (error) {
    if (kinds.length > 1 && error.name !== "NotAllowedError") // one of them may be there
      return [await open(["audio"]), await open(["video"])].filter(Boolean).join(" ");
    const what = kinds.map((kind) => WORDS[kind]).join(" and the ");
    const why = REFUSALS[error.name] ?? `not to be had (${error.message})`;
    return `The ${what} ${kinds.length > 1 ? "are" : "is"} ${why}. You are in the room without.`;
  }
}

const trackOf = (kind) => // (one that was unplugged is none)
  local.getTracks().find((track) => track.kind === kind && track.readyState === "live");

function showOwn() {
  removeTiles((tile) => tile.peer === null);
  const { video, figure } = tileOf(null, "", `${$("name").value.trim() || "Guest"} (you)`);
  figure.classList.add("mine");
  if (trackOf("video")) {
    video.muted = true;
    video.srcObject = local;
    figure.prepend(video);
  }
  $("tiles").prepend(figure);
  for (const kind of ["audio", "video"]) {
    const on = Boolean(trackOf(kind)?.enabled);
    $(kind).textContent = `Turn ${WORDS[kind]} ${on ? "off" : "on"}`; // (what it does: it needs no state)
    $(kind).classList.toggle("off", !on);
  }
}

for (const kind of ["audio", "video"])
  $(kind).onclick = async () => {
    const track = trackOf(kind);
    if (track) track.enabled = !track.enabled;
    else {
      local.getTracks().filter((old) => old.kind === kind).forEach((old) => local.removeTrack(old));
      show(await open([kind]));
      if (trackOf(kind)) room.media.add(trackOf(kind));
    }
    room.media.update();
    showOwn();
  };

// --- joining ---

// Returns the room's token, which the server mints for who has the token of this page's address.
async function token() {
  if (!held || held.expires_at < Date.now() / 1000 + 60) {
    const response = await fetch("join/token", {
      method: "POST",
      headers: { Authorization: `Bearer ${query.get("token")}`, "Content-Type": "application/json" },
      body: JSON.stringify({ page, channel, name: $("name").value.trim() || null }),
    });
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(answer.message), { final: response.status < 500 });
    held = answer;
  }
  return held.token;
}

// Calls the SFU, through the cloud's gate.
async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${await token()}`, "Content-Type": "application/json" };
  const response = await fetch(`join/sfu${path}`, { method, headers, body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status });
  return answer;
}

const address = async () =>
  `${location.origin.replace("http", "ws")}/v1?token=${encodeURIComponent(await token())}`;

$("lobby").onsubmit = async (event) => {
  event.preventDefault();
  $("join").disabled = true;
  try {
    await Promise.all([token(), warmUp()]);
    const trouble = await open(["audio", "video"].filter((kind) => $(`with-${kind}`).checked));
    enter();
    show(trouble);
  } catch (error) {
    show(error.final ? error.message : `The local cloud does not answer (${error.message}).`);
  }
  $("join").disabled = false;
};

function enter() {
  [$("lobby").hidden, $("room").hidden] = [true, false];
  showOwn();
  const signalling = new Signalling({ address, channel, onState, onPresence, onData });
  const parts = { signalling, stream: local, get tracks() { return local.getTracks(); }, onTrack, onEnd, call };
  room = { signalling, media: media === "sfu" ? new Sfu(parts) : new Mesh(parts) };
  $("status").textContent = "joining …";
  $("text").focus();
}

function onData(peer, data) {
  if (!members.has(peer) || room.media.take(peer, data)) return;
  if (typeof data === "string") say(nameOf(peer), data);
}

function leave() {
  room?.media.close();
  room?.signalling.close();
  room = held = undefined;
  for (const track of local.getTracks()) local.removeTrack(track), track.stop();
  members.clear();
  removeTiles(() => true);
  [$("lobby").hidden, $("room").hidden] = [false, true];
  show("", "lost");
  $("status").textContent = "";
}

$("leave").onclick = () => {
  leave();
  show("");
  $("join").focus();
};
addEventListener("pagehide", leave);

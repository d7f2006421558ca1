// The local cloud's console. What peers send is hostile: it only ever becomes text.

const token = new URLSearchParams(location.search).get("token");
const $ = (id) => document.getElementById(id);
const MAX_ENTRIES = 300; // rows of the log that are shown
const MAX_CHILDREN = 200; // of one value in a payload
const VIEWER = "console"; // the metadata of the sessions by which this page sees pictures

// --- elements ---

// Makes an element; texts among its children stay texts.
function make(tag, properties = {}, ...children) {
  const { data = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const chip = (text, kind = "") => make("span", { className: `chip ${kind}`, title: text }, text);
const chips = (texts, more = 0) =>
  make("span", { className: "chips" }, ...texts.map((one) => chip(one)), more > 0 ? `and ${more} more` : null);

function replace(place, ...children) {
  place.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// Keeps one element for each item, so that what is open, or has the focus, stays so.
function keep(place, items, id, create) {
  const kept = (place.kept ??= new Map());
  const present = new Set(items.map(id));
  for (const [key, one] of kept)
    if (!present.has(key)) {
      kept.delete(key);
      one.gone?.();
      one.element.remove();
    }
  items.forEach((item, index) => {
    let one = kept.get(id(item));
    if (!one) kept.set(id(item), (one = create(item)));
    const json = JSON.stringify(item);
    if (one.shown !== json) one.update(item);
    one.shown = json;
    if (place.children[index] !== one.element) place.insertBefore(one.element, place.children[index] ?? null);
  });
}

function pairs(place, entries) {
  replace(place, ...entries.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

// --- values as trees, built as they are opened ---

function leaf(name, value) {
  const kind = value === null ? "null" : typeof value;
  const text = kind === "string" ? JSON.stringify(value) : String(value);
  return make("div", { className: "leaf" },
    name === null ? null : make("span", { className: "name" }, `${name}: `),
    make("span", { className: `value-${kind}` }, text));
}

function tree(name, value, open = false) {
  if (value === null || typeof value !== "object") return leaf(name, value);
  const keys = Object.keys(value), isList = Array.isArray(value);
  const shape = isList ? `[${keys.length}]` : `{${keys.slice(0, 4).join(", ").slice(0, 80)}${keys.length > 4 ? ", …" : ""}}`;
  const inner = make("div", { className: "inner" });
  const node = make("details", { className: "tree" },
    make("summary", {}, name === null ? null : make("span", { className: "name" }, `${name}: `), shape), inner);
  const fill = () => {
    if (!node.open || inner.hasChildNodes()) return;
    inner.append(...keys.slice(0, MAX_CHILDREN).map((key) => tree(key, value[key])));
    if (keys.length > MAX_CHILDREN) inner.append(leaf("…", `${keys.length - MAX_CHILDREN} more`));
  };
  node.addEventListener("toggle", fill);
  node.open = open;
  fill();
  return node;
}

// Shows text that may be JSON.
function payload(text, open = true) {
  try {
    return tree(null, JSON.parse(text), open);
  } catch {
    return make("div", { className: "leaf" }, text);
  }
}

// --- talking to the cloud ---

async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? `the cloud answered ${response.status}`);
  return answer;
}

// Runs what a button does, and says what went wrong.
async function attempt(work) {
  $("trouble").hidden = true;
  try {
    return await work();
  } catch (error) {
    $("trouble").textContent = error.message;
    $("trouble").hidden = false;
  }
}

const button = (text, work, className = "") =>
  make("button", { type: "button", className, onclick: () => attempt(work) }, text);
const inject = (name, values = {}) => call("POST", "fault", { name, arguments: values });

// --- the log ---

const ARROWS = { sent: "→", got: "←", call: "⇄", end: "■" };
const SPOKEN = { sent: "sent by", got: "got by", call: "call", end: "end of" };
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hour12: false });
let paused = false, missed = 0;

const size = (bytes) => (bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`);

// Says in few words what a row is about.
function summary(row) {
  if (row.kind === "end") return [`closed ${row.status ?? ""}`, row.text];
  if (row.kind === "call") return [String(row.status), row.error ?? ""];
  let frame = {};
  try {
    frame = JSON.parse(row.text) ?? {};
  } catch { /* it is shown as it is */ }
  const text = (value, before = "") => (typeof value === "string" ? before + value : null);
  const { type, channel, to, from, code, message, peerId, data } = frame;
  const about = [text(channel), text(to, "to "), text(from, "from "), text(peerId), text(code), text(message),
    data === undefined ? null : JSON.stringify(data)].filter((one) => one !== null);
  return [text(type) ?? row.text.slice(0, 80), about.join("  ").slice(0, 200)];
}

function entry(row) {
  const [what, about] = summary(row);
  const isError = row.error !== undefined || what === "error";
  const at = new Date(row.at * 1000);
  const node = make("details", { className: isError ? "entry refused" : "entry", data: { n: row.n } },
    make("summary", {},
      make("time", { title: at.toISOString() }, `${clock.format(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`),
      make("span", { className: "arrow", title: SPOKEN[row.kind], ariaLabel: SPOKEN[row.kind] }, ARROWS[row.kind]),
      make("span", { className: "peer", title: row.peer }, row.peer),
      make("span", { className: "what" }, make("b", {}, what), `  ${about}`),
      make("span", { className: "size" }, row.size ? size(row.size) : ""),
      row.why ? make("span", { className: "why" }, `${row.error ?? "refused"}: ${row.why}`) : null));
  node.addEventListener("toggle", () => {
    if (node.children.length > 1) return;
    const shown = make("div", { className: "payload" });
    if (row.kind === "call") shown.append(make("h4", {}, "request"));
    shown.append(row.text ? payload(row.text) : make("div", { className: "quiet" }, "nothing"));
    if (row.answer) shown.append(make("h4", {}, "answer"), payload(row.answer));
    if (row.text.length < row.size) shown.append(make("h4", {}, `the beginning of ${size(row.size)}`));
    node.append(shown);
  });
  return node;
}

function addRows(rows, skipped) {
  if (paused) {
    missed += rows.length + skipped;
    $("pause").textContent = `Go on (${missed} more)`;
    return;
  }
  const entries = $("entries");
  entries.prepend(...rows.slice(-MAX_ENTRIES).map(entry).reverse());
  while (entries.children.length > MAX_ENTRIES) entries.lastElementChild.remove();
  if (skipped) {
    $("skipped").textContent = `Too many to show: ${(missed += skipped)} rows were left out. A filter looks at all of them.`;
    $("skipped").hidden = false;
  }
}

// --- the stream ---

let stream = null;
const state = { peers: [], channels: [], rooms: [], sessions: [], faults: {}, keys: {}, usage: {} };

function status(name, text) {
  $("status").dataset.state = name;
  $("status").textContent = text;
}

function follow() {
  stream?.close();
  const query = new URLSearchParams({ token, words: $("words").value });
  if ($("only-refused").checked) query.set("refused", "1");
  stream = new EventSource(`events?${query}`);
  stream.onmessage = ({ data }) => {
    status("live", "live");
    apply(JSON.parse(data));
  };
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED)
      status("lost", "The cloud has ended, or has another address now. Open the one that it prints.");
    else status("lost", "connecting again");
  };
}

function apply({ first = false, log = [], skipped = 0, ...sections }) {
  if (first) {
    missed = 0;
    $("skipped").hidden = true;
    if (!paused) $("entries").replaceChildren();
  }
  if (log.length || skipped) addRows(log, skipped);
  Object.assign(state, sections);
  for (const name of Object.keys(sections)) show[name]?.();
}

// --- views ---

const USAGE = [["peers", "peers"], ["connections", "connections"], ["channels", "channels"],
  ["sessions", "SFU sessions"], ["messages", "messages"], ["peak", "most connections"]];
const KEYS = [["publishable_key", "publishable key"], ["key_id", "key id"], ["key_secret", "key secret"],
  ["sfu_app_id", "SFU app"], ["sfu_secret", "SFU secret"], ["turn_app", "TURN app"],
  ["turn_api_key", "TURN API key"], ["turn_secret_key", "TURN secret key"]];

function count(name, number) {
  $(`count-${name}`).textContent = number;
}

const show = {
  usage() {
    const { usage } = state;
    replace($("usage"), ...USAGE.map(([key, text]) =>
      make("div", {}, make("dt", {}, text), make("dd", {}, usage[key].toLocaleString()))));
    count("channels", usage.channels);
    count("peers", usage.peers);
  },
  keys() {
    pairs($("keys"), [["messages", `ws://${location.host}`], ["REST, SFU", location.origin],
      ...KEYS.map(([key, text]) => [text, make("code", {}, state.keys[key])])]);
  },
  refused() {
    const { count, latest } = state.refused;
    keep($("refused"), [...latest].reverse(), (row) => row.n, (row) => ({ element: entry(row), update() {} }));
    $("count-refused").textContent = count;
    $("count-refused").hidden = count === 0;
  },
  channels() {
    keep($("channel-list"), state.channels, (one) => one.name, () => {
      const element = make("article", { className: "card" });
      return { element, update: (channel) => replace(element,
        make("header", {}, make("h3", {}, channel.name), channel.pattern ? chip("pattern") : null,
          make("span", { className: "end quiet" }, `${channel.count} subscribed`)),
        chips(channel.peers, channel.count - channel.peers.length)) };
    });
    replace($("channel-names"), ...state.channels.map(({ name }) => make("option", { value: name })));
  },
  peers() {
    keep($("peer-list"), state.peers, (one) => one.id, ({ id }) => {
      const claims = make("dl", { className: "pairs" });
      const kick = button("Disconnect", () => call("POST", "kick", { peer: id }), "harm");
      kick.ariaLabel = `Disconnect ${id}`;
      const element = make("article", { className: "card" }, make("header", {}, make("h3", {}, id), kick), claims);
      return { element, update: (peer) => pairs(claims, [
        ["may", peer.actions.length ? chips(peer.actions) : "nothing"],
        ["channels of its token", chips(peer.patterns.at(-1))],
        ["subscribed to", peer.count ? chips(peer.channels, peer.count - peer.channels.length) : "nothing"],
        peer.expires === null ? null : ["token expires", clock.format(new Date(peer.expires * 1000))],
        peer.connections > 1 ? ["connections", String(peer.connections)] : null,
        peer.peerMetadata === null ? null : ["shown to others", payload(peer.peerMetadata)],
        peer.metadata === null ? null : ["for itself", payload(peer.metadata)],
      ].filter(Boolean)) };
    });
    replace($("peer-ids"), ...state.peers.map(({ id }) => make("option", { value: id })));
  },
  rooms() {
    count("rooms", state.rooms.length);
    keep($("room-list"), state.rooms, (one) => one.name, () => {
      const element = make("article", { className: "card" });
      return { element, update: (room) => replace(element,
        make("header", {}, make("h3", {}, room.name), make("span", { className: "end quiet" }, `${room.count} members`)),
        table(["member", "media", "tracks", "has signalled to"], room.members.map((member) => [
          make("span", {}, member.peer, " ", member.speaking ? chip("speaks", "on") : null), member.media ?? "—",
          member.tracks.map((one) => `${one.name ?? one.kind ?? "track"}${one.on === false ? " (muted)" : ""}`).join(", ") || "—",
          member.links.join(", ") || "—"]))) };
    });
  },
  sessions() {
    const sessions = state.sessions.filter((one) => one.metadata !== VIEWER);
    count("sfu", sessions.length);
    keep($("session-list"), sessions, (one) => one.id, session);
  },
  faults() {
    const active = Object.entries(state.faults).filter(([, value]) => value);
    $("count-faults").hidden = !active.length;
    count("faults", active.length);
    for (const card of $("fault-list").children)
      card.classList.toggle("active", Boolean(state.faults[card.dataset.name]));
  },
};

function table(heads, rows) {
  return make("div", { className: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell)))))));
}

// --- SFU: sessions, and what their tracks look like ---

function session({ id }) {
  const facts = make("div"), pictures = make("div", { className: "pictures" });
  const element = make("article", { className: "card" }, facts, pictures);
  const open = new Map(); // by track id
  const toggle = async (track) => {
    if (open.has(track.id)) return close(track.id);
    const picture = new Picture(id, track, () => close(track.id));
    open.set(track.id, picture);
    pictures.append(picture.element);
    await picture.start();
  };
  const close = (track) => {
    open.get(track)?.close();
    open.delete(track);
  };
  const update = (one) => {
    for (const track of open.keys()) if (!one.tracks.some((other) => other.id === track)) close(track);
    const focused = facts.contains(document.activeElement) ? document.activeElement.dataset.track : null;
    const rows = one.tracks.map((track) => [
      Object.assign(button(track.kind === "video" ? "Watch" : "Listen", () => toggle(track)),
        { ariaLabel: `${track.kind === "video" ? "Watch" : "Listen to"} ${track.name ?? track.id}` }),
      track.kind, track.name ?? "—", track.codec ?? "—",
      track.kind === "video" ? (track.size?.join(" × ") ?? "—") : "",
      track.bitRate === null ? "—" : rate(track.bitRate), track.loss === null ? "—" : `${(track.loss * 100).toFixed(1)} %`,
      String(track.subscribers)]);
    one.tracks.forEach((track, index) => (rows[index][0].dataset.track = track.id));
    replace(facts,
      make("header", {}, make("h3", {}, make("code", {}, id.slice(0, 12))), chip(one.state, one.state === "connected" ? "on" : ""),
        one.metadata === null ? null : make("span", { className: "quiet" }, one.metadata.slice(0, 200)),
        button("End session", () => inject("kill_sfu_session", { session_id: id }), "harm")),
      one.tracks.length ? table(["", "kind", "name", "codec", "size", "bit rate", "loss", "taken by"], rows) : null,
      one.receives.length
        ? make("p", { className: "quiet" }, "receives ", chips(one.receives.map((other) => `${other.kind} ${other.name ?? other.track.slice(0, 12)}`)))
        : null);
    if (focused) facts.querySelector(`[data-track="${CSS.escape(focused)}"]`)?.focus();
  };
  return { element, update, gone: () => [...open.keys()].forEach(close) };
}

const rate = (bits) => (bits < 1e6 ? `${Math.round(bits / 1000)} kbit/s` : `${(bits / 1e6).toFixed(1)} Mbit/s`);

// A track as this page receives it, in a session of its own with the SFU.
class Picture {
  #pc = new RTCPeerConnection(); #session; #track; #media;

  constructor(session, track, close) {
    [this.#session, this.#track] = [session, track];
    const isVideo = track.kind === "video";
    this.#media = make(isVideo ? "video" : "audio", { autoplay: true, muted: isVideo, playsInline: true, controls: !isVideo });
    this.element = make("figure", {}, this.#media,
      make("figcaption", {}, make("span", {}, track.name ?? track.id.slice(0, 12)), button("Close", close)));
    this.#pc.ontrack = ({ track }) => (this.#media.srcObject = new MediaStream([track]));
    this.#pc.onconnectionstatechange = () =>
      this.element.classList.toggle("fails", ["failed", "disconnected", "closed"].includes(this.#pc.connectionState));
  }

  async start() {
    const base = `api/sfu/${encodeURIComponent(state.keys.sfu_app_id)}/session`;
    this.#pc.createDataChannel(""); // an offer needs a section
    await this.#pc.setLocalDescription();
    const { sessionId, sessionDescription } = await call("POST", `${base}/new`,
      { sessionDescription: this.#pc.localDescription, metadata: VIEWER });
    await this.#pc.setRemoteDescription(sessionDescription);
    const offer = await call("POST", `${base}/${sessionId}/track/subscribe`,
      { tracks: [{ remoteSessionId: this.#session, remoteTrackId: this.#track.id }] });
    await this.#pc.setRemoteDescription(offer.sessionDescription);
    await this.#pc.setLocalDescription();
    await call("PUT", `${base}/${sessionId}/renegotiate`, { sessionDescription: this.#pc.localDescription });
  }

  close() {
    this.#pc.close();
    this.#media.srcObject = null;
    this.element.remove();
  }
}

// --- faults ---

const peerField = { name: "peer_id", label: "peer (all if empty)", list: "peer-ids", optional: true };
const seconds = (value) => ({ name: "seconds", label: "seconds", value, number: true });
const FAULTS = [
  ["drop_connections", "Drop connections", "TCP resets: clients see close code 1006.", [peerField]],
  ["refuse_connections", "Refuse connections", "Whoever connects is reset, for so long.", [seconds(5)], { seconds: 0 }],
  ["going_away", "Go away", "All are told to come back after so many milliseconds, and closed (1001).",
    [{ name: "retry_after_ms", label: "ms", value: 1000, number: true }]],
  ["close", "Close connections", "With a code that a server may send.",
    [{ name: "code", label: "code", value: 4001, number: true }, peerField]],
  ["hold_acks", "Hold acknowledgements", "For so long; then they go out, in order.", [seconds(5)], { seconds: 0 }],
  ["delay", "Delay frames", "Each frame to clients, by so long, from now on.", [seconds(0.5)], { seconds: 0 }],
  ["lose_media", "Lose media", "A fraction, 0 to 1, of the SFU's media packets.",
    [{ name: "fraction", label: "fraction", value: 0.05, number: true }], { fraction: 0 }],
];

function faultCard([name, title, text, fields, end]) {
  const inputs = fields.map((field) => make("input", {
    type: field.number ? "number" : "text", step: "any", min: 0, value: field.value ?? "", name: field.name,
    required: !field.optional, ariaLabel: `${title}: ${field.label}`, placeholder: field.optional ? field.label : "" }));
  fields.forEach((field, index) => field.list && inputs[index].setAttribute("list", field.list));
  const form = make("form", { className: "row" },
    ...inputs.map((input, index) => (fields[index].optional ? input : make("label", {}, input, fields[index].label))),
    make("button", { className: "harm" }, title), end ? button("End it", () => inject(name, end)) : null);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = inputs.filter((input) => input.value !== "").map((input) =>
      [input.name, input.type === "number" ? Number(input.value) : input.value]);
    attempt(() => inject(name, Object.fromEntries(given)));
  });
  return make("article", { className: "card fault", data: { name } },
    make("h3", {}, title), make("p", { className: "quiet" }, text), form);
}

// --- copying ---

const COPIES = {
  shell: (k) => Object.entries({
    METERED_URL: k.url, METERED_KEY: k.publishable_key, METERED_KEY_ID: k.key_id, METERED_KEY_SECRET: k.key_secret,
    METERED_SFU_URL: k.http_url, METERED_SFU_APP_ID: k.sfu_app_id, METERED_SFU_SECRET: k.sfu_secret,
  }).map(([name, value]) => `export ${name}=${value}\n`).join(""),
  python: (k) => `from metered_sync import ControlPlane, SfuClient, SignallingClient

client = SignallingClient(api_key="${k.publishable_key}", url="${k.url}")
sfu = SfuClient(app_id="${k.sfu_app_id}", secret="${k.sfu_secret}", url="${k.http_url}")
control = ControlPlane("${k.key_id}", "${k.key_secret}", url="${k.http_url}")
`,
  js: (k) => `// (Secrets stay on a server: a page gets a token, or the publishable key.)
const socket = new WebSocket("${k.url}/v1?key=${k.publishable_key}");
const sfu = "${k.http_url}/api/sfu/${k.sfu_app_id}";
`,
};

async function copy(button) {
  const text = COPIES[button.dataset.copy](await call("GET", "keys"));
  try {
    await navigator.clipboard.writeText(text);
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1000);
  } catch { // a frame, or a browser, that does not let this page write there
    $("copy-text").value = text;
    $("copy").showModal();
    $("copy-text").select();
  }
}

// --- the start ---

function view() {
  const name = location.hash.slice(1);
  const shown = document.querySelector("main > section#" + CSS.escape(name || "overview")) ?? $("overview");
  for (const section of document.querySelectorAll("main > section")) section.hidden = section !== shown;
  for (const link of document.querySelectorAll("nav a"))
    link.hash === `#${shown.id}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
}

let typing;
$("words").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(follow, 300);
};
$("filter").onsubmit = (event) => event.preventDefault();
$("only-refused").onchange = follow;
$("pause").onclick = () => {
  paused = !paused;
  missed = 0;
  $("pause").ariaPressed = String(paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) follow(); // with what the cloud has kept meanwhile
};
$("clear").onclick = () => attempt(async () => {
  await call("POST", "clear");
  follow();
});
$("join").onsubmit = (event) => {
  event.preventDefault();
  const opened = window.open("", "_blank");
  attempt(async () => {
    const { path } = await call("POST", "join-path", { channel: $("join-channel").value, media: $("join-media").value });
    if (opened) opened.location = path;
  });
};
for (const one of document.querySelectorAll("[data-copy]")) one.onclick = () => attempt(() => copy(one));
$("join-channel").setAttribute("list", "channel-names");
$("fault-list").append(...FAULTS.map(faultCard));
$("address").textContent = location.host;
window.addEventListener("hashchange", view);
view();
follow();

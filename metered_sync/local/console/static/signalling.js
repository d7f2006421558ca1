// A channel of the messaging service over one WebSocket: docs/protocol/signalling.md.

const ENDS = {
  4001: "This is another cloud by now, which does not know the page: ask for a new address by cloud.join_url(…).",
  4003: "This page may not enter the channel.",
  4012: "The account is suspended.",
  4020: "Somebody has taken you out of the room.",
};
const CHECK = 20_000; // ms between two pings; by the second without an answer the connection is lost

export const randomId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Signalling {
  peerId = null;
  iceServers = [];
  #socket; #reply; #count = 0; #pending = new Map(); #closed = false;

  // `address` promises where to connect, token included; an error of it that is `final` ends all.
  // onState(state, why): "connected", "reconnecting" (why: in how many ms), "ended" (why: a sentence).
  // onPresence(joined, left, first): entries {peerId, metadata}; `first` is a list of all others.
  // onData(peerId, data)
  constructor({ address, channel, onState, onPresence, onData }) {
    Object.assign(this, { address, channel, onState, onPresence, onData });
    this.#run();
  }

  publish = (data) => this.#request("publish", { channel: this.channel, data });
  send = (to, data) => this.#request("send", { to, data });

  close() {
    this.#closed = true;
    this.#socket?.close(1000);
  }

  async #run() {
    for (let pause = 500; ; pause = Math.min(2 * pause, 30_000)) {
      const end = await this.address().then((url) => this.#connection(url), (error) => ({ error }));
      if (this.#closed) return;
      const why = ENDS[end.code] ?? (end.error?.final && end.error.message);
      if (why) return this.onState("ended", why);
      if (end.welcome) pause = 500;
      const wait = Math.max(end.retryAfterMs ?? 0, pause * (0.8 + 0.4 * Math.random()));
      this.onState("reconnecting", wait);
      await sleep(wait);
      if (this.#closed) return;
    }
  }

  // Resolves when the connection has ended, with what is known of the end.
  async #connection(url) {
    const socket = (this.#socket = new WebSocket(url)), end = {};
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data), end);
    const checking = setInterval(() => {
      if (end.asked) socket.onclose({ code: 4000 }); // (a dead network answers no goodbye either)
      end.asked = true;
      if (socket.readyState === WebSocket.OPEN) socket.send('{"type": "ping"}');
    }, CHECK);
    ({ code: end.code } = await new Promise((resolve) => (socket.onclose = resolve)));
    clearInterval(checking);
    socket.onmessage = null;
    socket.close();
    for (const { reject } of this.#pending.values()) reject(new Error("the connection was lost"));
    this.#pending.clear();
    return end;
  }

  #take(frame, end) {
    end.asked = false;
    if (frame.type === "welcome") {
      end.welcome = true;
      this.peerId = frame.peerId;
      this.iceServers = frame.metadata?.iceServers ?? this.iceServers;
      end.first = true; // the first list is of all who are there
      this.#request("subscribe", { channel: this.channel, includeSenderMetadata: false }).then(
        () => this.onState("connected"),
        (error) => this.#closed || this.onState("ended", error.message),
      );
    } else if (frame.type === "presence" && frame.channel === this.channel) {
      const others = (list) => list.filter(({ peerId }) => peerId !== this.peerId);
      this.onPresence(others(frame.joined), others(frame.left), end.first);
      end.first = false;
    } else if (frame.type === "direct" || (frame.type === "message" && frame.channel === this.channel)) {
      this.onData(frame.from, frame.data);
    } else if (frame.type === "going_away") {
      end.retryAfterMs = frame.retryAfterMs;
    } else if (this.#pending.has(frame.requestId)) {
      const { resolve, reject } = this.#pending.get(frame.requestId);
      this.#pending.delete(frame.requestId);
      if (frame.type === "ack") resolve();
      else reject(new Error(frame.message ?? frame.code));
    }
  }

  #request(type, fields) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("not connected"));
      const requestId = String(++this.#count);
      this.#pending.set(requestId, { resolve, reject });
      this.#socket.send(JSON.stringify({ type, requestId, ...fields }));
    });
  }
}

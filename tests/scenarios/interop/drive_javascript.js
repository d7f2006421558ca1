// Drives the published client for JavaScript under Node: commands in, answers and events out.
//
// JSON lines on standard input and output; parties.py is the other end. The argument is the
// folder with the client's node_modules.
"use strict";

const { createRequire } = require("node:module");
const readline = require("node:readline");

const load = createRequire(`${process.argv[2]}/`);
const published = load("@metered-ca/realtime");
const WebSocket = load("ws");

const clients = new Map();
const tokens = new Map(); // what a provider waits for

const say = (fields) => process.stdout.write(`${JSON.stringify(fields)}\n`);
const peers = (entries) =>
  entries.map(({ peerId, metadata = null }) => ({ peerId, metadata }));

const EVENTS = {
  connected: (e) => ({
    event: "connected",
    peerId: e.peerId,
    isReconnect: e.isReconnect,
    expiresAt: e.expiresAt,
    serverTime: e.serverTime,
    maxMessageSize: e.maxMessageSize,
    iceServers: e.iceServers ? e.iceServers.length : null,
  }),
  disconnected: (e) => ({ event: "disconnected", ...e }),
  "state-change": (e) => ({ event: "state", ...e }),
  message: (e) => ({
    event: "message",
    channel: e.channel,
    from: e.from,
    data: e.data,
    metadata: e.fromMetadata ?? null,
  }),
  direct: (e) => ({
    event: "direct",
    from: e.from,
    data: e.data,
    metadata: e.fromMetadata ?? null,
  }),
  presence: (e) => ({
    event: "presence",
    channel: e.channel,
    joined: peers(e.joined),
    left: peers(e.left),
  }),
  "server-error": (e) => ({ event: "error", code: e.code }),
  "going-away": (e) => ({ event: "going_away", retryAfterMs: e.retryAfterMs }),
  "token-provider-error": (e) => ({
    event: "token_error",
    failures: e.consecutiveFailures,
  }),
};

function open(number, options) {
  const { key, url, inactivity, reconnect } = options;
  const credential = key
    ? { apiKey: key }
    : {
        tokenProvider: () =>
          new Promise((resolve) => {
            tokens.set(number, resolve);
            say({ client: number, event: "token" });
          }),
      };
  const client = new published.SignallingClient({
    ...credential,
    url,
    inactivityTimeoutMs: inactivity * 1000,
    reconnect: reconnect && {
      initialDelayMs: reconnect.initial * 1000,
      maxDelayMs: reconnect.most * 1000,
      jitterRatio: 0,
      maxAttempts: reconnect.attempts,
    },
    webSocketFactory: (address) => new WebSocket(address),
  });
  for (const [name, render] of Object.entries(EVENTS)) {
    client.on(name, (e) => say({ client: number, ...render(e) }));
  }
  clients.set(number, client);
}

async function carryOut({ client: number, do: verb, args }) {
  if (verb === "open") return open(number, ...args);
  const client = clients.get(number);
  switch (verb) {
    case "subscribe":
      return client.subscribe(args[0], args[1] ? { includeSenderMetadata: true } : {});
    case "state":
      return client.state;
    case "burst": // publish many times without waiting for each
      return Promise.all(
        Array.from({ length: args[1] }, (_, n) => client.publish(args[0], n)),
      );
    default:
      return client[verb](...args);
  }
}

// This client gives the errors that a server sends their code for a name.
function described({ name, closeCode }) {
  return /^[a-z_]+$/.test(name)
    ? { name: "ServerRequestError", code: name }
    : { name, code: closeCode ?? null };
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  if (command.do === "token") {
    tokens.get(command.client)(command.args[0]);
    return;
  }
  carryOut(command).then(
    (value) => say({ id: command.id, value: typeof value === "string" ? value : null }),
    (error) => say({ id: command.id, error: described(error) }),
  );
}).on("close", () => process.exit(0));

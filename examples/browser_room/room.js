// A member of a room whose media go through the SFU: the convention of docs/protocol/rooms-sfu.md.
//
// Of the published client only channels and direct messages are used: its MeteredPeer would offer
// media to each member by itself. Offers of members that do so are no messages of this convention.
import { SignallingClient } from "@metered-ca/realtime";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const longer = (pause) => Math.min(2 * pause, 10_000);

// Whether a session is lost. (The connection's own state tells of a goodbye after many seconds only.)
const lost = ({ pc }) =>
  ["disconnected", "failed", "closed"].includes(pc.connectionState) ||
  (pc.sctp ?? pc.getSenders()[0])?.transport?.state === "closed";

// Joins a room; resolves to {client, leave}. `token` promises the room's token, `gate` is the
// gate's address, `media` the MediaStream to publish, or null. `onTrack` and `onEnd` are told of
// what comes and goes: {peer, stream, name, kind, meta, track}; `track` is a MediaStreamTrack.
export async function joinRoom({ url, gate, token, channel, media, onTrack, onEnd }) {
  const client = new SignallingClient({ url, tokenProvider: token });
  const state = { $sfu: 1, boot: crypto.randomUUID(), rev: 0, session: null, tracks: [] };
  const members = new Map(); // by peer id, in the order in which they named their sessions
  const received = new Map(); // tracks, by session and id
  let publisher, receiver, spread, unlisted, left = false, wake = () => {};

  // --- sessions: one publishes, the other receives, so that offers never cross ---

  async function call(method, path, body) {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` };
    const response = await fetch(gate + path, { method, headers, body: JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status });
    return answer;
  }

  // Sends an offer or an answer of ours, and applies what comes back.
  async function negotiate(pc, method, path) {
    await pc.setLocalDescription();
    const answer = await call(method, path, { sessionDescription: pc.localDescription });
    if (answer.sessionDescription) await pc.setRemoteDescription(answer.sessionDescription);
    return answer;
  }

  async function connect(prepare) {
    const pc = new RTCPeerConnection();
    prepare(pc);
    const { sessionId } = await negotiate(pc, "POST", "/session/new");
    // With the gate's ticket, which is of use to us only, and without.
    return { pc, path: `/session/${sessionId}`, id: sessionId.split("~")[0] };
  }

  // --- publishing: a session that is lost is followed by another ---

  async function publish(tracks) {
    for (let pause = 250; !left; await sleep(pause), pause = longer(pause)) {
      try {
        publisher = await connect((pc) =>
          tracks.forEach((track) => pc.addTransceiver(track, { direction: "sendonly" })));
        for (let known = 0, looks = 0; !lost(publisher); looks++) {
          // The SFU lists tracks once their packets flow; before that it refuses those who ask for
          // them. What was announced stays announced until it flows anew.
          const missing = known < tracks.length;
          const flowing = missing ? await call("GET", `${publisher.path}/tracks`) : [];
          if (flowing.length > known && (flowing.length === tracks.length || looks > 5)) {
            [known, pause] = [flowing.length, 250];
            announce(publisher.id, flowing);
          }
          await sleep(missing ? 100 : 500);
        }
      } catch (error) {
        console.info("not published yet:", error);
        if (error.status === 403) return; // the token is a viewer's
      }
      publisher?.pc.close();
    }
  }

  function announce(session, flowing) {
    // The name outlives the session: by it the others find a track again.
    const tracks = flowing.map(({ trackId: id, trackKind: kind, mid }) =>
      ({ id, kind, stream: "camera", name: kind + mid, on: true, meta: null }));
    Object.assign(state, { rev: state.rev + 1, session, tracks });
    tellAll();
  }

  // --- receiving: one worker makes what is received what is wanted ---

  function wanted() {
    const tracks = new Map(), owned = new Set();
    // A session is whose who named it first, unless presence has reported that member as left.
    for (const [peer, member] of [...members].sort(([, a], [, b]) => b.here - a.here)) {
      for (const one of owned.has(member.session) ? [] : member.tracks)
        tracks.set(`${member.session} ${one.id}`, Object.assign(one, { peer }));
      owned.add(member.session);
    }
    return tracks;
  }

  async function receive() {
    for (let pause = 250; !left; ) {
      const woken = new Promise((resolve) => (wake = resolve)), tracks = wanted();
      try {
        if (receiver && lost(receiver)) receiver = void receiver.pc.close(); // and all anew
        const missing = [...tracks].filter(([key, one]) =>
          (!receiver || received.get(key)?.by !== receiver) && !(one.due > Date.now()));
        if (missing.length) receiver ??= await connect((pc) => pc.createDataChannel(""));
        while (missing.length) await subscribe(missing.splice(0, 16));
        pause = 250;
      } catch (error) {
        console.info("not received yet:", error);
        if (error.status !== 429) receiver?.pc.close(); // (429: only called too often)
        await sleep(pause = longer(pause));
      }
      letGo(tracks);
      await Promise.race([woken, sleep(500)]);
    }
  }

  async function subscribe(some) {
    const { pc, path } = receiver, before = new Set(pc.getTransceivers());
    const tracks = some.map(([, one]) => ({ remoteSessionId: one.session, remoteTrackId: one.id }));
    let offer;
    try {
      offer = await call("POST", `${path}/track/subscribe`, { tracks });
    } catch (error) {
      if (error.status !== 404 && error.status !== 400) throw error; // (400: no id that can be one)
      if (some.length === 1) return postpone(some[0][1]);
      for (const one of some) await subscribe([one]); // one that is missing fails them all
      return;
    }
    await pc.setRemoteDescription(offer.sessionDescription);
    await negotiate(pc, "PUT", `${path}/renegotiate`);
    // The new ones are in the order in which they were asked for. (Some that were given up may be
    // offered again: those make events, too.)
    const arrived = pc.getTransceivers().filter((one) => !before.has(one));
    arrived.forEach((transceiver, index) => {
      const [key, one] = some[index], { track } = transceiver.receiver;
      received.set(key, Object.assign(one, { track, transceiver, by: receiver }));
      onTrack(one);
    });
  }

  // Asks for a track again that the SFU does not have, ever later; after some seconds asks its
  // member for its state; after a minute gives it up, until there is another state.
  function postpone(one) {
    one.tries = (one.tries ?? 0) + 1;
    one.due = one.tries > 9 ? Infinity : Date.now() + Math.min(250 * 2 ** one.tries, 10_000);
    if (one.tries === 4) client.send(one.peer, { $sfu: 1, ask: true }).catch(() => {});
  }

  function letGo(tracks) {
    for (const [key, one] of received) {
      const now = tracks.get(key), { track, transceiver, by } = one;
      if (now?.peer === one.peer) continue;
      received.delete(key);
      onEnd(one);
      if (now) { // its member has come back under another id
        received.set(key, Object.assign(now, { track, transceiver, by }));
        onTrack(now);
      } else if (transceiver.direction !== "stopped") {
        transceiver.direction = "inactive"; // the SFU learns of it with our next answer
      }
    }
  }

  // --- the room ---

  const tellAll = () => client.publish(channel, state).catch(() => {}); // (else with the next list)
  const tell = (peer) => client.send(peer, state).catch(() => { // perhaps we may not send
    spread ??= setTimeout(() => tellAll(spread = null), 500 * Math.random());
  });

  function take(peer, data) {
    const member = members.get(peer);
    if (!member || data?.$sfu !== 1) return;
    if (data.ask === true) return tell(peer);
    const { boot, rev, session, tracks } = data; // a stranger's claims
    if (typeof boot !== "string" || !Number.isSafeInteger(rev) || !Array.isArray(tracks)) return;
    if (boot === member.boot && rev <= member.rev) return;
    if (typeof session !== "string" && tracks.length) return;
    if (session !== member.session) members.delete(peer); // to stand last in the order
    members.set(peer, Object.assign(member, { boot, rev, session, tracks: [] }));
    for (const { id, kind, stream, name, meta } of tracks.filter(Boolean).slice(0, 32))
      if (typeof id === "string") member.tracks.push({ id, kind, stream, name, meta, session });
    wake();
  }

  function listed(joined, gone) {
    for (const peer of joined) {
      const member = members.get(peer) ?? { session: null, tracks: [] };
      clearTimeout(member.limbo);
      members.set(peer, Object.assign(member, { here: true }));
      if (state.tracks.length && !unlisted) tell(peer);
    }
    // Media need no signalling: those of a member that is gone may go on, and it may be back soon.
    for (const peer of gone.filter((peer) => members.get(peer)?.here)) {
      const limbo = setTimeout(() => wake(members.delete(peer)), 10_000);
      Object.assign(members.get(peer), { here: false, limbo });
    }
    if (state.tracks.length && unlisted) tellAll();
    unlisted = false;
    wake();
  }

  client.on("message", (event) => event.channel === channel && take(event.from, event.data));
  client.on("direct", (event) => take(event.from, event.data));
  client.on("connected", () => (unlisted = true));
  client.on("presence", (event) => {
    if (event.channel !== channel) return;
    const [joined, left] = [event.joined, event.left].map((list) => list.map((one) => one.peerId));
    // The first list after connecting has everybody who is there.
    listed(joined, unlisted ? [...members.keys()].filter((peer) => !joined.includes(peer)) : left);
  });
  await client.connect();
  await client.subscribe(channel);
  receive();
  if (media) publish(media.getTracks());

  function leave() {
    left = true;
    Object.assign(state, { rev: state.rev + 1, session: null, tracks: [] }); // ends them at once
    tellAll();
    for (const session of [publisher, receiver]) session?.pc.close();
    client.close();
  }
  return { client, leave };
}

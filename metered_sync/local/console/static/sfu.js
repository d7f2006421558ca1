// Sound and pictures through the SFU: the convention of docs/protocol/rooms-sfu.md.

import { randomId, sleep } from "./signalling.js";

const LIMBO = 10_000; // ms for which the media of a member that has left go on: it may come back
const longer = (pause) => Math.min(2 * pause, 10_000);

// Whether a session is lost. (The connection's own state tells of a goodbye after many seconds only.)
const lost = ({ pc }) =>
  ["disconnected", "failed", "closed"].includes(pc.connectionState) ||
  (pc.sctp ?? pc.getSenders()[0])?.transport?.state === "closed";

export class Sfu {
  #room; #publisher; #receiver; #spread; #left = false; #wake = () => {};
  #state = { $sfu: 1, boot: randomId(), rev: 0, session: null, tracks: [], speaking: false };
  #members = new Map(); // by peer id, in the order in which they named their sessions
  #received = new Map(); // tracks, by session and id

  // room: {signalling, tracks (an array, of one stream), stream, onTrack, onEnd}, as Mesh has it,
  // and `call(method, path, body)`, which promises the answer of the SFU, or of a gate to it.
  constructor(room) {
    this.#room = room;
    this.#receive();
    this.#publish();
  }

  // Takes a list of presence; `first`: of all who are there.
  list(joined, left, first) {
    const ids = joined.map((one) => one.peerId);
    for (const peer of ids) {
      const member = this.#members.get(peer) ?? { session: null, tracks: [] };
      clearTimeout(member.limbo);
      this.#members.set(peer, Object.assign(member, { here: true }));
      if (this.#state.tracks.length && !first) this.#tell(peer);
    }
    const gone = first
      ? [...this.#members.keys()].filter((peer) => !ids.includes(peer))
      : left.map((one) => one.peerId);
    for (const peer of gone.filter((one) => this.#members.get(one)?.here)) {
      const limbo = setTimeout(() => this.#wake(this.#members.delete(peer)), LIMBO);
      Object.assign(this.#members.get(peer), { here: false, limbo });
    }
    if (this.#state.tracks.length && first) this.#tellAll();
    this.#wake();
  }

  // Takes the data of a message; says whether it was meant for here.
  take(peer, data) {
    if (data?.$sfu === undefined) return ["rtc-description", "rtc-ice"].includes(data?.type);
    const member = this.#members.get(peer);
    if (!member || data.$sfu !== 1) return true;
    if (data.ask === true) return this.#answer(peer, member);
    const { boot, rev, session, tracks } = data; // a stranger's claims
    if (typeof boot !== "string" || !Number.isSafeInteger(rev) || !Array.isArray(tracks)) return true;
    if (typeof session !== "string" && tracks.length) return true;
    if (boot === member.boot && rev <= member.rev) return true;
    if (session !== member.session) this.#members.delete(peer); // to stand last in the order
    this.#members.set(peer, Object.assign(member, { boot, rev, session, tracks: [] }));
    for (const { id, stream } of tracks.filter(Boolean).slice(0, 32))
      if (typeof id === "string") member.tracks.push({ id, stream: String(stream), session });
    this.#wake();
    return true;
  }

  // Tells a member that asks; at most twice a second, as each message counts against our rate.
  #answer(peer, member) {
    if (performance.now() - (member.answered ?? -Infinity) > 500) {
      member.answered = performance.now();
      this.#tell(peer);
    }
    return true;
  }

  // A track that comes later is published with the others, in a new session.
  add() {
    this.#publisher?.pc.close();
    this.#wakePublisher();
  }

  // Tells the others which tracks are muted.
  update() {
    if (this.#state.tracks.length) this.#announce(this.#state.session, this.#state.tracks);
  }

  close() {
    this.#left = true;
    this.#announce(null, []); // ends them at once
    for (const session of [this.#publisher, this.#receiver]) session?.pc.close();
    this.#members.forEach((member) => clearTimeout(member.limbo));
    this.#letGo(new Map());
    this.#wakePublisher();
    this.#wake();
  }

  // --- sessions: one publishes, the other receives, so that offers never cross ---

  // Sends an offer or an answer of ours, and applies what comes back.
  async #negotiate(pc, method, path) {
    await pc.setLocalDescription();
    const answer = await this.#room.call(method, path, { sessionDescription: pc.localDescription });
    if (answer.sessionDescription) await pc.setRemoteDescription(answer.sessionDescription);
    return answer;
  }

  async #connect(prepare) {
    const pc = new RTCPeerConnection();
    prepare(pc);
    const { sessionId } = await this.#negotiate(pc, "POST", "/session/new");
    // With the gate's ticket, which is of use to us only, and without.
    return { pc, path: `/session/${sessionId}`, id: sessionId.split("~")[0] };
  }

  // --- publishing: a session that is lost is followed by another ---

  #wakePublisher = () => {};

  async #publish() {
    for (let pause = 250; !this.#left; await sleep(pause), pause = longer(pause)) {
      const added = new Promise((resolve) => (this.#wakePublisher = resolve));
      const tracks = [...this.#room.tracks];
      if (!tracks.length) await added;
      if (this.#left) return;
      if (!tracks.length) continue;
      try {
        const publisher = (this.#publisher = await this.#connect((pc) =>
          tracks.forEach((track) => pc.addTransceiver(track, { direction: "sendonly" }))));
        for (let known = 0, looks = 0; !lost(publisher); looks++) {
          // The SFU lists tracks once their packets flow; before that it refuses those who ask for
          // them. What was announced stays announced until it flows anew.
          const missing = known < tracks.length;
          const flowing = missing ? await this.#room.call("GET", `${publisher.path}/tracks`) : [];
          if (flowing.length > known && (flowing.length === tracks.length || looks > 5)) {
            [known, pause] = [flowing.length, 250];
            this.#announce(publisher.id, flowing.map(({ trackId: id, trackKind: kind }) =>
              // The name outlives the session: by it the others find a track again.
              ({ id, kind, stream: "camera", name: kind, meta: { role: "camera" } })));
          }
          await sleep(missing ? 100 : 500);
        }
      } catch (error) {
        console.info("not published yet:", error);
      }
      this.#publisher?.pc.close();
    }
  }

  #announce(session, tracks) {
    const on = (kind) => this.#room.tracks.some((track) => track.kind === kind && track.enabled);
    const told = tracks.map((one) => ({ ...one, on: on(one.kind) }));
    Object.assign(this.#state, { rev: this.#state.rev + 1, session, tracks: told });
    this.#tellAll();
  }

  #tellAll = () => this.#room.signalling.publish(this.#state).catch(() => {}); // (else with the next list)

  #tell = (peer) =>
    this.#room.signalling.send(peer, this.#state).catch(() => {
      // Perhaps this page may not send: then to all, and once for all who come in a crowd.
      this.#spread ??= setTimeout(() => this.#tellAll((this.#spread = null)), 500 * Math.random());
    });

  // --- receiving: one worker makes what is received what is wanted ---

  #wanted() {
    const tracks = new Map(), owned = new Set();
    // A session is whose who named it first, unless presence has reported that member as left.
    for (const [peer, member] of [...this.#members].sort(([, a], [, b]) => b.here - a.here)) {
      for (const one of owned.has(member.session) ? [] : member.tracks)
        tracks.set(`${member.session} ${one.id}`, Object.assign(one, { peer }));
      owned.add(member.session);
    }
    return tracks;
  }

  async #receive() {
    for (let pause = 250; !this.#left; ) {
      const woken = new Promise((resolve) => (this.#wake = resolve)), tracks = this.#wanted();
      try {
        if (this.#receiver && lost(this.#receiver)) this.#receiver = void this.#receiver.pc.close();
        const missing = [...tracks].filter(([key, one]) =>
          (!this.#receiver || this.#received.get(key)?.by !== this.#receiver) && !(one.due > Date.now()));
        if (missing.length) this.#receiver ??= await this.#connect((pc) => pc.createDataChannel(""));
        while (missing.length) await this.#subscribe(missing.splice(0, 16));
        pause = 250;
      } catch (error) {
        console.info("not received yet:", error);
        if (error.status !== 429) this.#receiver?.pc.close(); // (429: only called too often)
        await sleep((pause = longer(pause)));
      }
      if (this.#left) break;
      this.#letGo(tracks);
      await Promise.race([woken, sleep(500)]);
    }
    this.#receiver?.pc.close();
  }

  async #subscribe(some) {
    const { pc, path } = this.#receiver, before = new Set(pc.getTransceivers());
    const tracks = some.map(([, one]) => ({ remoteSessionId: one.session, remoteTrackId: one.id }));
    let offer;
    try {
      offer = await this.#room.call("POST", `${path}/track/subscribe`, { tracks });
    } catch (error) {
      if (error.status !== 404 && error.status !== 400) throw error; // (400: no id that can be one)
      if (some.length === 1) return this.#postpone(some[0][1]);
      for (const one of some) await this.#subscribe([one]); // one that is missing fails them all
      return;
    }
    await pc.setRemoteDescription(offer.sessionDescription);
    await this.#negotiate(pc, "PUT", `${path}/renegotiate`);
    // The new ones are in the order in which they were asked for. (Some that were given up may be
    // offered again: those make events, too.)
    const arrived = pc.getTransceivers().filter((one) => !before.has(one));
    arrived.forEach((transceiver, index) => {
      const [key, one] = some[index], { track } = transceiver.receiver;
      this.#received.set(key, Object.assign(one, { track, transceiver, by: this.#receiver }));
      this.#room.onTrack(one);
    });
  }

  // Asks for a track again that the SFU does not have, ever later; after some seconds asks its
  // member for its state; after a minute gives it up, until there is another state.
  #postpone(one) {
    one.tries = (one.tries ?? 0) + 1;
    one.due = one.tries > 9 ? Infinity : Date.now() + Math.min(250 * 2 ** one.tries, 10_000);
    if (one.tries === 4) this.#room.signalling.send(one.peer, { $sfu: 1, ask: true }).catch(() => {});
  }

  #letGo(tracks) {
    for (const [key, one] of this.#received) {
      const now = tracks.get(key), { track, transceiver, by } = one;
      if (now?.peer === one.peer) continue;
      this.#received.delete(key);
      this.#room.onEnd(one);
      if (now) { // its member has come back under another id
        this.#received.set(key, Object.assign(now, { track, transceiver, by }));
        this.#room.onTrack(now);
      } else if (transceiver.direction !== "stopped") {
        transceiver.direction = "inactive"; // the SFU learns of it with our next answer
      }
    }
  }
}

// One WebSocket session with the daemon, with the face of a WebRTC call (wire.js): what a call does by
// itself is done here. The microphone and the camera go out as events, the reply is played in the page, and
// `output_audio_buffer.*`, which only calls have, is told of our own player. When the line breaks, the server keeps
// the session for a while: `reopen` goes on with it, and what was heard of the reply until then goes on playing.

import { Frames } from "./frames.js";
import { Capture, Player, toBase64 } from "./sound.js";
import { Refused, refusal } from "./wire.js";

const OPEN_TIMEOUT_MS = 10_000;
const FRAME_LIMIT_BYTES = 64 << 10; // a slow line: sound goes first, the next frame is newer anyway
const MAX_PICTURE_CHARS = 384 << 10; // less than what counts as a dead line
const STALLED_BYTES = 512 << 10; // eight seconds of sound that do not leave: the line is dead

/** The server does not keep the session any more. */
export class SessionGone extends Error {
  constructor() {
    super("The session was lost with the connection.");
  }
}

/** A browser can not set headers: the key goes with the subprotocols. */
function protocols(key) {
  return key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
}

export class SocketCall {
  transport = "websocket";

  /**
   * @param {{key: string|null, onEvent: (event: object) => void, onReplyNode: (node: AudioNode) => void,
   *          onLost: () => void, isHearing: () => boolean}} hooks  as for a Call
   */
  constructor(hooks) {
    this.hooks = hooks;
    this.isOver = false;
    this.isBroken = false; // the line is, but `reopen` may mend it
    this.socket = null;
    this.stalled = null; // a socket that nothing leaves by any more
    this.token = null; // opens a session that was kept
    this.lastEventId = null;
    this.waiting = []; // what is to be said on a line that is broken
    this.responseId = null;
    this.silenced = null; // the response whose sound nobody wants any more
    this.hasFrames = false; // the server holds a picture of ours
    this.isForgetting = false;
    this.capture = new Capture((block) => this.sendSound(block));
    this.frames = new Frames((jpeg) => this.sendFrame(jpeg));
    this.player = new Player({ onStarted: () => this.tell("started"), onStopped: () => this.tell("stopped") });
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  get maxEventChars() {
    return MAX_PICTURE_CHARS;
  }

  /** Throws Refused, TypeError (no server) or a timeout Error. */
  async open(microphoneTrack, cameraTrack) {
    await Promise.all([this.capture.open(), this.player.open()]);
    await this.connect({ "x-ext": "1" });
    this.hooks.onReplyNode(this.player.node);
    await this.setMicrophone(microphoneTrack);
    await this.setCamera(cameraTrack);
  }

  /** Goes on with a session whose line broke; nothing that was said is missing. Throws as `open`, and SessionGone. */
  async reopen() {
    await this.connect({ resume: this.token, after: this.lastEventId });
    this.isBroken = false;
    this.stalled?.close();
    this.hooks.onReplyNode(this.player.node); // again: nobody measures a reply while the line is broken
    for (const event of this.waiting.splice(0)) this.put(event);
  }

  async connect(query) {
    const url = new URL(`/v1/realtime?${new URLSearchParams(query)}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    try {
      this.socket = new WebSocket(url, protocols(this.hooks.key));
    } catch {
      throw new Refused(400, "Browsers can not send a key with such characters over WebSocket.");
    }
    this.socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    try {
      await this.opened();
    } catch (error) {
      this.socket.close(); // it may still be waiting
      throw (await this.findRefusal()) ?? (this.isBroken ? new SessionGone() : error);
    }
    if (this.isOver) throw new Error("closed while connecting");
    this.socket.onclose = () => this.lose();
  }

  opened() {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("The server does not answer.")), OPEN_TIMEOUT_MS);
      this.socket.onopen = resolve;
      this.socket.onclose = () => reject(new Error("The server took no WebSocket connection."));
      this.socket.addEventListener("open", () => clearTimeout(timer));
      this.socket.addEventListener("close", () => clearTimeout(timer));
    });
  }

  /** Browsers hide why an upgrade was refused: a request with the same key may tell. */
  async findRefusal() {
    const headers = this.hooks.key ? { Authorization: `Bearer ${this.hooks.key}` } : {};
    const response = await fetch("/v1/models", { headers, cache: "no-store", signal: AbortSignal.timeout(OPEN_TIMEOUT_MS) });
    return response.status === 401 ? refusal(response) : null;
  }

  // ------------------------------------------------------------------ what goes out
  send(event) {
    if (event.type !== "output_audio_buffer.clear") this.put(event);
    else if (this.player.items.size > 0) this.silence();
    else this.silenced = this.responseId;
  }

  put(event) {
    if (this.isOpen) this.socket.send(JSON.stringify(event));
    else if (this.isBroken) this.waiting.push(event);
  }

  sendSound(block) {
    if (!this.isOpen) return;
    if (this.socket.bufferedAmount > STALLED_BYTES) this.lose();
    else this.put({ type: "input_audio_buffer.append", audio: toBase64(block) });
  }

  sendFrame(jpeg) {
    if (!this.isOpen || this.socket.bufferedAmount > FRAME_LIMIT_BYTES) return;
    this.hasFrames = true;
    this.put({ type: "input_image_buffer.append", image: toBase64(jpeg) });
  }

  async setMicrophone(track) {
    if (!this.isOver) this.capture.attach(track);
  }

  async setCamera(track) {
    if (this.isOver) return;
    this.frames.attach(track);
    this.isForgetting = !track && this.hasFrames;
    if (this.isForgetting && !this.hooks.isHearing()) this.forgetFrame();
  }

  /** The camera is off: the server shall not look at its last picture. It goes with the sound of the buffer. */
  forgetFrame() {
    this.isForgetting = this.hasFrames = false;
    this.put({ type: "input_audio_buffer.clear" });
  }

  // ------------------------------------------------------------------ what comes in
  receive(event) {
    if (this.isOver) return;
    if (event.type !== "session.created") this.lastEventId = event.event_id;
    switch (event.type) {
      case "session.created":
        this.token = event.x_resume_token ?? null;
        this.lastEventId ??= event.event_id; // of a session that was kept it is not one of its events
        break;
      case "response.created":
        this.responseId = event.response.id;
        break;
      case "response.output_audio.delta":
        if (event.response_id !== this.silenced) this.player.play(event.item_id, event.delta);
        return; // bulky, and nothing that the page has to know
      case "response.output_audio.done":
        this.player.end();
        break;
      case "input_audio_buffer.speech_started":
        this.hooks.onEvent(event);
        this.silence();
        return;
      case "x.output.doubt":
        this.player.doubt(event.doubt);
        break;
      case "input_audio_buffer.committed":
        if (this.isForgetting) this.forgetFrame();
        break;
    }
    this.hooks.onEvent(event);
  }

  /** The reply falls silent at once, and the server learns how much of it was heard. */
  silence() {
    this.silenced = this.responseId;
    const wasPlaying = this.player.isPlaying;
    for (const { id, heardMs } of this.player.flush()) {
      this.put({ type: "conversation.item.truncate", item_id: id, content_index: 0, audio_end_ms: heardMs });
    }
    if (wasPlaying) this.tell("cleared");
  }

  tell(what) {
    this.hooks.onEvent({ type: `output_audio_buffer.${what}`, response_id: this.responseId });
  }

  /** As a call's: there are no RTP streams here. */
  async stats() {
    return [];
  }

  // ------------------------------------------------------------------ the end
  lose() {
    if (this.isOver || this.isBroken) return;
    if (this.token) this.breakOff();
    else this.close();
    this.hooks.onLost();
  }

  /** Says no goodbye, which would end the session. */
  breakOff() {
    this.isBroken = true;
    this.socket.onclose = this.socket.onmessage = null;
    this.stalled = this.socket;
    this.socket = null;
  }

  async close() {
    if (this.isOver) return;
    this.isOver = true;
    if (this.socket) {
      this.socket.onclose = null;
      this.socket.close(1000, "hung up");
    }
    this.stalled?.close();
    this.frames.close();
    this.capture.close();
    this.player.close();
  }
}

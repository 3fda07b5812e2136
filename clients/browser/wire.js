// One WebRTC call to the daemon: offer, answer, the `oai-events` data channel. It knows no meaning of any event.
// Who calls again after a loss, or goes over WebSocket instead (socket.js), is link.js.

const ANSWER_TIMEOUT_MS = 10_000;
const MEDIA_TIMEOUT_MS = 5_000;
const HANGUP_TIMEOUT_MS = 2_000;

/** A refusal by the server, with its HTTP status. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server answered, but no packet found its way: UDP is blocked, most likely. */
export class NoMediaPath extends Error {
  constructor() {
    super("No media path to the server.");
  }
}

/** What an HTTP error says. */
export async function refusal(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // not a JSON error body: the status has to do
  }
  return new Refused(response.status, message);
}

export class Call {
  transport = "webrtc";

  /**
   * @param {{key: string|null, onEvent: (event: object) => void, onStream: (stream: MediaStream) => void,
   *          onLost: () => void}} hooks  onLost is called at most once, and not after close().
   */
  constructor(hooks) {
    this.hooks = hooks;
    this.location = null;
    this.isOver = false;
    this.failOpening = null; // while a media path is looked for
    this.peer = new RTCPeerConnection({ iceServers: [] });
    this.audio = this.peer.addTransceiver("audio", { direction: "sendrecv" });
    this.video = this.peer.addTransceiver("video", { direction: "sendonly" });
    this.channel = this.peer.createDataChannel("oai-events");
    this.channel.onmessage = (message) => hooks.onEvent(JSON.parse(message.data));
    this.channel.onclose = () => this.lose();
    this.peer.ontrack = (event) => {
      // msid-less answers exist: make a stream of our own then
      if (event.track.kind === "audio") hooks.onStream(event.streams[0] ?? new MediaStream([event.track]));
    };
    this.peer.onconnectionstatechange = () => {
      if (["failed", "disconnected"].includes(this.peer.connectionState)) this.lose();
    };
  }

  get isOpen() {
    return this.channel.readyState === "open";
  }

  get maxEventChars() {
    return this.peer.sctp.maxMessageSize;
  }

  /** Posts the offer and waits for the data channel. Throws Refused, NoMediaPath, TypeError (no server) or a timeout Error. */
  async open(microphoneTrack, cameraTrack) {
    await this.setMicrophone(microphoneTrack);
    await this.setCamera(cameraTrack);
    await this.peer.setLocalDescription();
    // The server learns our addresses from our checks, so no candidate has to be waited for.
    const form = new FormData();
    form.append("sdp", this.peer.localDescription.sdp);
    form.append("session", JSON.stringify({ type: "realtime" }));
    const response = await fetch("/v1/realtime/calls?x-ext=1", {
      method: "POST",
      body: form,
      headers: this.headers(),
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
    if (!response.ok) throw await refusal(response);
    this.location = response.headers.get("Location");
    const sdp = await response.text();
    if (this.isOver) throw new Error("closed while connecting");
    await this.peer.setRemoteDescription({ type: "answer", sdp });
    await this.opened();
  }

  headers() {
    return this.hooks.key ? { Authorization: `Bearer ${this.hooks.key}` } : {};
  }

  opened() {
    if (this.isOpen) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.failOpening = () => reject(new NoMediaPath());
      const timer = setTimeout(this.failOpening, MEDIA_TIMEOUT_MS);
      this.channel.onopen = () => {
        clearTimeout(timer);
        this.failOpening = null;
        resolve();
      };
    });
  }

  /** Drops the event when the channel is not open: after a loss the history is re-created anyway. */
  send(event) {
    if (this.isOpen) this.channel.send(JSON.stringify(event));
  }

  /** null: send nothing. Needs no new offer. */
  async setMicrophone(track) {
    if (!this.isOver) await this.audio.sender.replaceTrack(track);
  }

  async setCamera(track) {
    if (!this.isOver) await this.video.sender.replaceTrack(track);
  }

  lose() {
    if (this.isOver) return;
    if (this.failOpening) return this.failOpening();
    this.isOver = true;
    this.peer.close();
    this.hooks.onLost();
  }

  /** Hangs up; resolves when the server knows. Also works while the page is being closed (keepalive). */
  async close() {
    if (this.isOver) return;
    this.isOver = true;
    this.peer.close();
    if (this.location === null) return;
    const signal = AbortSignal.timeout(HANGUP_TIMEOUT_MS);
    await fetch(`${this.location}/hangup`, { method: "POST", headers: this.headers(), keepalive: true, signal }).catch(() => {
      // the server is gone, and the call with it
    });
  }

  async stats() {
    const report = await this.peer.getStats();
    return [...report.values()].filter((entry) => entry.type.endsWith("bound-rtp"));
  }
}

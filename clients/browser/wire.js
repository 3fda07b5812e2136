// One WebRTC call to the daemon: offer, answer, the `oai-events` data channel. It knows no meaning of any event.
// Who calls again after a loss is link.js.

const OPEN_TIMEOUT_MS = 10_000;

/** A refusal by the server, with its HTTP status. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function refusal(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // not a JSON error body: the status has to do
  }
  return new Refused(response.status, message);
}

export class Call {
  /**
   * @param {{key: string|null, onEvent: (event: object) => void, onStream: (stream: MediaStream) => void,
   *          onLost: () => void}} hooks  onLost is called at most once, and not after close().
   */
  constructor(hooks) {
    this.hooks = hooks;
    this.location = null;
    this.isOver = false;
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

  /** Posts the offer and waits for the data channel. Throws Refused, TypeError (no server) or a timeout Error. */
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
      signal: AbortSignal.timeout(OPEN_TIMEOUT_MS),
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
    if (this.channel.readyState === "open") return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("No media path to the server.")), OPEN_TIMEOUT_MS);
      this.channel.onopen = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Drops the event when the channel is not open: after a loss the history is re-created anyway. */
  send(event) {
    if (this.channel.readyState === "open") this.channel.send(JSON.stringify(event));
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
    this.isOver = true;
    this.peer.close();
    this.hooks.onLost();
  }

  /** Hangs up; also works while the page is being closed (keepalive). */
  close() {
    if (this.isOver) return;
    this.isOver = true;
    this.peer.close();
    if (this.location === null) return;
    fetch(`${this.location}/hangup`, { method: "POST", headers: this.headers(), keepalive: true }).catch(() => {
      // the server is gone, and the call with it
    });
  }
}

// Sound in and out of the page as PCM16 at 24 kHz, for the transport that sends it as events (socket.js).

export const RATE_HZ = 24_000;

export function toBase64(buffer) {
  let binary = "";
  for (const byte of new Uint8Array(buffer)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

function toSamples(base64) {
  const binary = atob(base64);
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, index) => view.getInt16(2 * index, true) / 32768);
}

/** A microphone track -> `onBlock(ArrayBuffer)` every 20 ms. */
export class Capture {
  constructor(onBlock) {
    this.onBlock = onBlock;
    // The device's own rate: not every browser resamples a microphone for a context of another one.
    this.context = new AudioContext();
    this.source = null;
    this.node = null;
  }

  async open() {
    await this.context.audioWorklet.addModule("capture_worklet.js");
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => this.onBlock(data);
    this.context.resume();
  }

  /** @param {?MediaStreamTrack} track a muted track gives silence, null gives nothing */
  attach(track) {
    this.source?.disconnect();
    this.source = track && this.context.createMediaStreamSource(new MediaStream([track]));
    this.source?.connect(this.node);
  }

  close() {
    this.context.close();
  }
}

/** Plays the replies' items, and knows how much of each was played. */
export class Player {
  /** @param {{onStarted: () => void, onStopped: () => void}} hooks onStopped: all was played, nothing was flushed */
  constructor(hooks) {
    this.hooks = hooks;
    this.context = new AudioContext({ sampleRate: RATE_HZ });
    this.node = null;
    this.items = new Map(); // id -> {numReceived, numPlayed}, of what is not over
    this.isPlaying = false;
  }

  async open() {
    await this.context.audioWorklet.addModule("playback_worklet.js");
    this.node = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.hear(data);
    this.node.connect(this.context.destination);
    this.context.resume();
  }

  hear(message) {
    if (this.items.size === 0) return; // flushed meanwhile
    if (message.type === "played") {
      const item = this.items.get(message.id);
      if (item) item.numPlayed += message.numSamples;
    } else if (message.type === "started") {
      this.isPlaying = true;
      this.hooks.onStarted();
    } else {
      this.items.clear();
      this.isPlaying = false;
      this.hooks.onStopped();
    }
  }

  /** @param {string} base64 PCM16 */
  play(id, base64) {
    const samples = toSamples(base64);
    if (samples.length === 0) return;
    const item = this.items.get(id) ?? { numReceived: 0, numPlayed: 0 };
    item.numReceived += samples.length;
    this.items.set(id, item);
    this.node.port.postMessage({ id, samples }, [samples.buffer]);
  }

  /** @param {"duck" | "hold" | "resume"} doubt what to do with the reply while a sound over it is weighed */
  doubt(doubt) {
    this.node.port.postMessage(doubt);
  }

  /** No more comes for now: what waits for a cushion is played. */
  end() {
    this.node.port.postMessage("end");
  }

  /** Silence at once. Returns what was heard of each item that was not over: [{id, heardMs}]. */
  flush() {
    this.node.port.postMessage("flush");
    const latencySamples = (this.context.outputLatency || 0) * RATE_HZ; // played, but still on its way to the ear
    const heard = [...this.items].map(([id, { numPlayed }]) => ({
      id,
      heardMs: Math.floor((Math.max(0, numPlayed - latencySamples) * 1000) / RATE_HZ),
    }));
    this.items.clear();
    this.isPlaying = false;
    return heard;
  }

  close() {
    this.context.close();
  }
}

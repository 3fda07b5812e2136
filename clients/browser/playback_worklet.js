// On the audio thread: plays what it is given in order, without clicks, and tells how far it came.
// In: {samples: Float32Array, id} more of an item · "end" nothing follows for now · "flush" silence at once ·
// "duck" softer · "hold" silent, its place is kept · "resume" as before.
// Out: {type: "started"} · {type: "played", id, numSamples} · {type: "stopped"} all was played.
// The queue has no bound of its own: it holds one reply, whose length the server limits.

const CUSHION_SAMPLES = 0.06 * sampleRate; // collected before sound begins, and again after it ran dry
const FADE_SAMPLES = 0.004 * sampleRate;
const LOUDNESS = { duck: 0.25, hold: 0, resume: 1 };
const REPORT_SAMPLES = 0.02 * sampleRate;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.offset = 0; // into the first chunk
    this.numQueued = 0;
    this.isEnded = false;
    this.isRunning = false; // false also while the cushion is filled
    this.hasStarted = false;
    this.gain = 0; // rises at a beginning
    this.wantedGain = 1;
    this.tail = 0; // the last sample before silence, falling to zero
    this.last = 0;
    this.numUnreported = 0;
    this.port.onmessage = ({ data }) => this.obey(data);
  }

  obey(message) {
    if (message === "end") this.isEnded = true;
    else if (message === "flush") this.flush();
    else if (message in LOUDNESS) this.wantedGain = LOUDNESS[message];
    else {
      this.queue.push(message);
      this.numQueued += message.samples.length;
      this.isEnded = false;
    }
  }

  flush() {
    this.queue = [];
    this.offset = this.numQueued = this.numUnreported = 0;
    this.isEnded = this.hasStarted = false;
    this.wantedGain = 1;
    this.pause();
  }

  pause() {
    if (this.isRunning) this.tail = this.last;
    this.isRunning = false;
    this.gain = 0;
  }

  process(inputs, [[output]]) {
    if (!this.isRunning && this.numQueued > 0 && (this.isEnded || this.numQueued >= CUSHION_SAMPLES)) this.begin();
    for (let index = 0; index < output.length; index += 1) output[index] = this.next();
    if (this.isEnded && this.numQueued === 0) this.finish();
    return true;
  }

  begin() {
    this.isRunning = true;
    if (!this.hasStarted) this.port.postMessage({ type: "started" });
    this.hasStarted = true;
  }

  finish() {
    this.isEnded = false;
    this.pause();
    if (this.hasStarted) this.port.postMessage({ type: "stopped" });
    this.hasStarted = false;
  }

  next() {
    if (this.isRunning && this.numQueued === 0) this.pause();
    this.tail -= this.tail / FADE_SAMPLES;
    if (!this.isRunning) return this.tail;
    const step = 1 / FADE_SAMPLES;
    this.gain += Math.max(-step, Math.min(step, this.wantedGain - this.gain));
    if (this.gain === 0 && this.wantedGain === 0) return (this.last = this.tail);
    this.last = this.take() * this.gain + this.tail;
    return this.last;
  }

  take() {
    const chunk = this.queue[0];
    const sample = chunk.samples[this.offset++];
    this.numQueued -= 1;
    this.numUnreported += 1;
    const isWhole = this.offset === chunk.samples.length;
    if (isWhole || this.numUnreported >= REPORT_SAMPLES) {
      this.port.postMessage({ type: "played", id: chunk.id, numSamples: this.numUnreported });
      this.numUnreported = 0;
    }
    if (isWhole) {
      this.queue.shift();
      this.offset = 0;
    }
    return sample;
  }
}

registerProcessor("playback", Playback);

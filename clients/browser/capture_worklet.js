// On the audio thread: the microphone at the context's rate -> blocks of 20 ms of PCM16 at 24 kHz.

const OUTPUT_HZ = 24_000;
const BLOCK_SAMPLES = 480; // 20 ms
const HALF_TAPS = 16; // of the low-pass, in samples of the lower rate

/** Streaming band-limited resampling by a windowed sinc: any cut of the input gives the same output. */
class Resampler {
  constructor(inputHz) {
    this.step = inputHz / OUTPUT_HZ;
    const widening = Math.max(1, this.step); // the lower rate sets the band
    this.cutoff = 0.92 / widening;
    this.halfWidth = HALF_TAPS * widening;
    this.samples = new Float32Array(2 * Math.ceil(this.halfWidth));
    this.position = Math.ceil(this.halfWidth); // of the next output sample, in `samples`
  }

  /** @returns {number[]} the output samples that are complete now */
  push(input) {
    const joined = new Float32Array(this.samples.length + input.length);
    joined.set(this.samples);
    joined.set(input, this.samples.length);
    const output = [];
    for (; this.position + this.halfWidth < joined.length; this.position += this.step) output.push(this.at(joined, this.position));
    const first = Math.max(0, Math.floor(this.position - this.halfWidth));
    this.samples = joined.slice(first);
    this.position -= first;
    return output;
  }

  at(samples, position) {
    let sum = 0;
    for (let index = Math.ceil(position - this.halfWidth); index <= position + this.halfWidth; index += 1) {
      const distance = index - position;
      const phase = Math.PI * distance * this.cutoff;
      const sinc = phase === 0 ? 1 : Math.sin(phase) / phase;
      sum += samples[index] * sinc * this.cutoff * (0.5 + 0.5 * Math.cos((Math.PI * distance) / this.halfWidth));
    }
    return sum;
  }
}

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate);
    this.block = new Int16Array(BLOCK_SAMPLES);
    this.numFilled = 0;
  }

  process([[channel]]) {
    if (!channel) return true; // no microphone is connected now
    for (const sample of this.resampler.push(channel)) {
      this.block[this.numFilled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32767)));
      if (this.numFilled === BLOCK_SAMPLES) this.hand();
    }
    return true;
  }

  hand() {
    this.port.postMessage(this.block.buffer, [this.block.buffer]);
    this.block = new Int16Array(BLOCK_SAMPLES);
    this.numFilled = 0;
  }
}

registerProcessor("capture", Capture);

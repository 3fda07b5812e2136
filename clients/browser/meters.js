// Levels of the microphone and of the reply, and the moment when a sound begins.

const PERIOD_MS = 15;
const FLOOR_DB = -60;
const AUDIBLE_DB = -50;

function toDecibel(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return 10 * Math.log10(sum / samples.length + 1e-12);
}

/** One stream's level. `level` is 0..1 over 60 dB; `peakDb` the loudest window so far. */
class Meter {
  constructor() {
    this.analyser = null;
    this.samples = null;
    this.source = null;
    this.level = 0;
    this.peakDb = -120;
    this.isLoud = false;
    this.onSound = null;
  }

  attach(node) {
    this.detach();
    this.source = node;
    this.analyser = node.context.createAnalyser();
    this.analyser.fftSize = node.context.sampleRate > 32_000 ? 1024 : 512; // 21 ms at 48 or 24 kHz
    this.samples = new Float32Array(this.analyser.fftSize);
    node.connect(this.analyser);
  }

  detach() {
    this.source?.disconnect(this.analyser);
    this.source = null;
    this.level = 0;
  }

  measure() {
    if (!this.source) return;
    this.analyser.getFloatTimeDomainData(this.samples);
    const decibel = toDecibel(this.samples);
    this.level = Math.min(1, Math.max(0, 1 - decibel / FLOOR_DB));
    this.peakDb = Math.max(this.peakDb, decibel);
    const wasLoud = this.isLoud;
    this.isLoud = decibel > AUDIBLE_DB;
    // Only from quiet to loud: the tail of a reply that was just stopped is not the next one.
    if (this.isLoud && !wasLoud && this.onSound) {
      const onSound = this.onSound;
      this.onSound = null;
      onSound(performance.now());
    }
  }
}

export class Meters {
  /** @param {(mic: number, reply: number) => void} onLevels called about 30 times a second. */
  constructor(onLevels) {
    this.onLevels = onLevels;
    this.context = null;
    this.microphone = null;
    this.reply = null;
    this.timer = null;
  }

  /** Must be called from a user's gesture, or the context stays suspended. */
  start() {
    if (!this.context) {
      this.context = new AudioContext();
      this.microphone = new Meter();
      this.reply = new Meter();
    }
    this.context.resume().catch(() => {
      // without a gesture the meters stay still; sound itself comes from the audio element
    });
    clearInterval(this.timer);
    let tick = 0;
    this.timer = setInterval(() => {
      this.microphone.measure();
      this.reply.measure();
      tick += 1;
      if (tick % 2 === 0) this.onLevels(this.microphone.level, this.reply.level);
    }, PERIOD_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.microphone?.detach();
    this.reply?.detach();
    this.onLevels(0, 0);
  }

  attachMicrophone(stream) {
    if (stream) this.microphone?.attach(this.context.createMediaStreamSource(stream));
    else this.microphone?.detach();
  }

  attachReply(stream) {
    this.attachReplyNode(this.context.createMediaStreamSource(stream));
  }

  /** @param {?AudioNode} node of any context; null: there is no reply any more */
  attachReplyNode(node) {
    if (node) this.reply?.attach(node);
    else this.reply?.detach();
  }

  /** Calls back once with the moment (performance.now()) of the next audible sound of the reply. */
  whenReplySounds(callback) {
    if (this.reply) this.reply.onSound = callback;
  }
}

// Microphone and camera: opening, closing, and what went wrong in words for people.

const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
const CAMERA = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 10, max: 15 }, facingMode: "user" };

const REASONS = {
  NotAllowedError: (what) => `Permission for the ${what} was denied. Allow it in the address bar, then switch it on again.`,
  NotFoundError: (what) => `No ${what} was found.`,
  NotReadableError: (what) => `The ${what} is in use by another program.`,
  OverconstrainedError: (what) => `The ${what} can not deliver what is needed.`,
  SecurityError: (what) => `This browser forbids the ${what} here.`,
};

/** Why a device did not open; `message` is for people. */
export class DeviceError extends Error {}

async function open(what, constraints) {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new DeviceError(
      `Browsers give no ${what} to plain http from another machine. Open this page as https:// (omnid serve --tls auto) or on localhost.`,
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    const reason = REASONS[error.name] ?? (() => `The ${what} did not open: ${error.message}`);
    throw new DeviceError(reason(what));
  }
}

/** One device. `onEnded` is called when it goes away by itself (unplugged, permission taken back). */
class Device {
  constructor(what, constraints, onEnded) {
    this.what = what;
    this.constraints = constraints;
    this.onEnded = onEnded;
    this.stream = null;
  }

  get track() {
    return this.stream?.getTracks()[0] ?? null;
  }

  get isOpen() {
    return this.track !== null;
  }

  async open() {
    this.stream ??= await open(this.what, this.constraints);
    this.track.onended = () => {
      this.close();
      this.onEnded();
    };
    return this.stream;
  }

  close() {
    if (!this.stream) return;
    for (const track of this.stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
  }
}

export const createMicrophone = (onEnded) => new Device("microphone", { audio: MICROPHONE }, onEnded);
export const createCamera = (onEnded) => new Device("camera", { video: CAMERA }, onEnded);

// Keeps a call alive: connects, and after a loss calls again with growing pauses until it is told to stop.
// By WebRTC, and by WebSocket where that finds no path (UDP is blocked) or does not exist. A WebSocket session whose
// line broke is gone on with, as long as the server keeps it.

import { SessionGone, SocketCall } from "./socket.js";
import { Call, NoMediaPath, Refused } from "./wire.js";

const FIRST_PAUSE_MS = 400;
const LONGEST_PAUSE_MS = 8_000;

const isFinal = (error) => error instanceof Refused && error.status >= 400 && error.status < 500 && error.status !== 429;

export class Link {
  /**
   * @param {{onEvent: Function, onStream: Function, onReplyNode: Function, isHearing: () => boolean, tracks: () => {microphone: ?MediaStreamTrack, camera: ?MediaStreamTrack},
   *          onUp: (isSame: boolean) => void, onDown: (message: string) => void, onRefused: (error: Error) => void}} hooks
   *   onUp: isSame where the session is the one that it was before the line broke; onDown: the link broke or could not be made and will be tried again; onRefused: it will not.
   * @param {?string} transport "websocket": that alone; else WebRTC first
   */
  constructor(hooks, transport) {
    this.hooks = hooks;
    this.canUseWebRtc = transport !== "websocket" && "RTCPeerConnection" in window;
    this.isUdpBlocked = false; // found out since start()
    this.key = null;
    this.call = null;
    this.isWanted = false;
    this.numFailures = 0;
    this.upAt = 0;
    this.timer = null;
  }

  get isUp() {
    return Boolean(this.call?.isOpen);
  }

  /** @returns {?("webrtc"|"websocket")} what is in use; null while nothing is */
  get transport() {
    return this.isUp ? this.call.transport : null;
  }

  start() {
    this.isWanted = true;
    this.numFailures = 0;
    this.isUdpBlocked = false;
    this.attempt();
  }

  stop() {
    this.isWanted = false;
    clearTimeout(this.timer);
    this.call?.close();
    this.call = null;
  }

  send(event) {
    this.call?.send(event);
  }

  /** Something else knows that the server is gone (a failed health check): do not wait for ICE to notice. */
  declareLost() {
    this.call?.lose();
  }

  isCurrent(call) {
    return call === this.call && this.isWanted;
  }

  create() {
    const Transport = this.canUseWebRtc && !this.isUdpBlocked ? Call : SocketCall;
    const isCurrent = () => this.isCurrent(call);
    const call = new Transport({
      key: this.key,
      onEvent: (event) => isCurrent() && this.hooks.onEvent(event),
      onStream: (stream) => isCurrent() && this.hooks.onStream(stream),
      onReplyNode: (node) => isCurrent() && this.hooks.onReplyNode(node),
      isHearing: this.hooks.isHearing,
      onLost: () => isCurrent() && this.retry("The connection to the server was lost."),
    });
    return call;
  }

  async attempt() {
    const isSame = Boolean(this.call);
    const call = (this.call ??= this.create());
    try {
      if (isSame) await call.reopen();
      else {
        const { microphone, camera } = this.hooks.tracks();
        await call.open(microphone, camera);
      }
    } catch (error) {
      if (!call.isBroken || error instanceof SessionGone) await call.close(); // so that its place is free
      if (this.isCurrent(call)) this.fail(error);
      return;
    }
    if (!this.isCurrent(call)) return;
    this.numFailures = 0;
    this.upAt = performance.now();
    this.hooks.onUp(isSame);
  }

  fail(error) {
    if (isFinal(error)) {
      this.stop();
      this.hooks.onRefused(error);
    } else if (error instanceof NoMediaPath || error instanceof SessionGone) {
      this.isUdpBlocked ||= error instanceof NoMediaPath;
      this.call = null;
      this.attempt();
    } else {
      this.retry(error instanceof TypeError ? "The server can not be reached." : error.message);
    }
  }

  retry(message) {
    if (!this.call?.isBroken) this.call = null;
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** this.numFailures, LONGEST_PAUSE_MS);
    this.numFailures += 1;
    this.hooks.onDown(message);
    // Half of the pause is random, so that many pages do not come back at the same instant.
    this.timer = setTimeout(() => this.attempt(), pause * (0.5 + Math.random() / 2));
  }
}

// The page's composition: hands what one module tells to the others. Read this first.
// devices (media.js) -> call (link.js: wire.js, or socket.js with sound.js and frames.js) -> meaning (conversation.js) -> page (ui.js, captions.js, meters.js)

import { Captions } from "./captions.js";
import { Conversation } from "./conversation.js";
import { watchHealth } from "./health.js";
import { Link } from "./link.js";
import { createCamera, createMicrophone } from "./media.js";
import { Meters } from "./meters.js";
import { describeStages } from "./stages.js";
import { takeStill } from "./still.js";
import { Ui } from "./ui.js";

const MAX_LOGGED_EVENTS = 1_000;
// The last words are still on their way (packets, jitter buffer) when the button is let go.
const RELEASE_TAIL_MS = 120;

const EVENT_FRAME_CHARS = 1_024; // of an event, around the picture in it

const query = new URLSearchParams(location.search);
const events = [];
let health = { state: "loading" };
let isMicrophoneOn = false;
let lastLatencyMs = null;

function record(direction, event) {
  events.push({ direction, at_ms: performance.now(), event });
  if (events.length > MAX_LOGGED_EVENTS) events.shift();
}

const ui = new Ui({
  connect: () => (link.isWanted ? disconnect() : connect()),
  toggleMicrophone: () => (isMicrophoneOn ? muteMicrophone() : unmuteMicrophone()),
  toggleCamera,
  toggleManual,
  press,
  release,
  stop: () => conversation.stop(),
  say: (text) => {
    ui.showError("reply", null);
    conversation.say(text);
  },
  useKey: (key) => {
    sessionStorage.setItem("key", key);
    connect();
  },
});
const captions = new Captions(ui.log);
const meters = new Meters((microphone, reply) => ui.showLevels(microphone, reply));
const microphone = createMicrophone(() => deviceEnded("microphone"));
const camera = createCamera(() => deviceEnded("camera"));

const conversation = new Conversation(
  (event) => {
    record("out", event);
    link.send(event);
  },
  {
    onState: showState,
    onTurn: (turn) => {
      captions.show(turn);
      ui.showHint(captions.isEmpty);
    },
    onLatency: (milliseconds) => {
      lastLatencyMs = milliseconds;
      ui.showLatency(milliseconds);
    },
    onStages: (metrics) => ui.showStages(describeStages(metrics)),
    onError: (message) => ui.showError("reply", message),
    onAwaitSound: () => meters.whenReplySounds((at) => conversation.soundHeard(at)),
    onStillWanted: answerStill,
  },
  query.has("stills"),
);

const link = new Link({
  tracks: () => ({ microphone: microphone.track, camera: camera.track }),
  onEvent: (event) => {
    record("in", event);
    conversation.handle(event);
  },
  onStream: (stream) => {
    // Chromium feeds a remote track into WebAudio only while an element plays it too.
    ui.player.srcObject = stream;
    ui.player.play().catch(() => ui.showError("device", "The browser does not let this page play sound. Press a button once."));
    meters.attachReply(stream);
  },
  onReplyNode: (node) => meters.attachReplyNode(node),
  isHearing: () => conversation.state === "hearing",
  onUp: (isSame) => {
    ui.showError("link", null);
    if (isSame) conversation.comeBack();
    else conversation.begin();
    showControls();
  },
  onDown: (message) => {
    ui.showError("link", `${message} Trying again…`);
    meters.attachReplyNode(null);
    conversation.leave();
    showControls();
  },
  onRefused: (error) => {
    disconnect();
    if (error.status === 401) {
      sessionStorage.removeItem("key");
      ui.askForKey();
    } else ui.showError("link", error.message);
  },
}, query.get("transport"));

// -------------------------------------------------------------------- the call
async function connect() {
  for (const source of ["link", "device", "reply"]) ui.showError(source, null);
  meters.start();
  conversation.setState("connecting");
  link.isWanted = true; // while the browser asks for the microphone, the button already reads "Hang up"
  await unmuteMicrophone();
  if (!link.isWanted) return;
  link.key = sessionStorage.getItem("key");
  link.start();
  showControls();
}

function disconnect() {
  link.stop();
  microphone.close();
  camera.close();
  isMicrophoneOn = false;
  conversation.isManual = false;
  ui.showPreview(null);
  ui.player.srcObject = null;
  meters.stop();
  conversation.setState("offline");
  showControls();
}

// -------------------------------------------------------------------- devices
async function unmuteMicrophone() {
  try {
    const stream = await microphone.open();
    if (!link.isWanted) return microphone.close();
    isMicrophoneOn = true;
    ui.showError("device", null);
    microphone.track.enabled = !conversation.isManual;
    meters.attachMicrophone(stream);
    await link.call?.setMicrophone(microphone.track);
  } catch (error) {
    ui.showError("device", `${error.message} You can still type.`);
  }
  return showControls();
}

function muteMicrophone() {
  isMicrophoneOn = false;
  if (microphone.track) microphone.track.enabled = false;
  showControls();
}

async function toggleCamera() {
  try {
    if (camera.isOpen) camera.close();
    else await camera.open();
    if (!link.isWanted) camera.close();
    ui.showPreview(camera.stream);
    await link.call?.setCamera(camera.track);
  } catch (error) {
    ui.showError("device", error.message);
  }
  showControls();
}

async function answerStill(callId) {
  let still = { error: "The camera is off." };
  try {
    if (camera.isOpen && link.call) still = await takeStill(camera.track, link.call.maxEventChars - EVENT_FRAME_CHARS);
  } catch (error) {
    still = { error: `The camera gave no picture: ${error.message}` };
  }
  conversation.answerStill(callId, still);
}

function deviceEnded(what) {
  ui.showError("device", `The ${what} went away.`);
  if (what === "microphone") {
    isMicrophoneOn = false;
    meters.attachMicrophone(null);
    link.call?.setMicrophone(null);
  } else {
    ui.showPreview(null);
    link.call?.setCamera(null);
  }
  showControls();
}

// -------------------------------------------------------------------- push to talk
function toggleManual() {
  conversation.setManual(!conversation.isManual);
  if (microphone.track) microphone.track.enabled = isMicrophoneOn && !conversation.isManual;
  showControls();
}

function press() {
  if (microphone.track) microphone.track.enabled = isMicrophoneOn;
  conversation.press(performance.now());
}

function release() {
  const releasedAt = performance.now();
  setTimeout(() => {
    if (conversation.isManual && microphone.track) microphone.track.enabled = false;
    conversation.release(releasedAt);
  }, RELEASE_TAIL_MS);
}

// -------------------------------------------------------------------- what is shown
function showControls() {
  ui.showControls({
    isWanted: link.isWanted,
    isUp: link.isUp,
    transport: link.transport,
    isMicrophoneOn,
    isCameraOn: camera.isOpen,
    isManual: conversation.isManual,
    canConnect: health.state === "ready",
  });
}

function showState(state) {
  const idle = { loading: "loading", failed: "failed" }[health.state] ?? "offline";
  ui.showState(state === "offline" ? idle : state);
}

watchHealth((news) => {
  health = news;
  ui.showModel(health);
  if (link.isUp && health.state === "gone" && health.askedAt > link.upAt) link.declareLost();
  const errors = { failed: health.error ?? "The server could not load its model.", gone: "The server can not be reached." };
  ui.showError("server", link.isWanted ? null : (errors[health.state] ?? null));
  showState(conversation.state);
  showControls();
});

window.addEventListener("pagehide", disconnect);

/** For tests and the curious: what the page believes, what went over the wire, and a way to send more. */
window.omnid = {
  events,
  send: (event) => conversation.send(event),
  get state() {
    return conversation.state;
  },
  get replyPeakDb() {
    return meters.reply?.peakDb ?? null;
  },
  get lastLatencyMs() {
    return lastLatencyMs;
  },
  get transport() {
    return link.transport;
  },
  stats: () => link.call.stats(),
};

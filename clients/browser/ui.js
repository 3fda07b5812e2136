// The page's elements: shows what it is told and reports what people press. It decides nothing.

const WORDS = {
  offline: "Not connected",
  loading: "The model is loading…",
  failed: "The server has no model",
  connecting: "Connecting…",
  reconnecting: "Connection lost. Calling again…",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking…",
  speaking: "Speaking",
};

const TRANSPORTS = {
  webrtc: ["WebRTC", "Sound and pictures go by UDP"],
  websocket: ["WebSocket", "Sound and pictures go by TCP: UDP is blocked, or this was asked for. Late packets hold up what follows."],
};

const byId = (id) => document.getElementById(id);

function showMeter(element, level) {
  element.style.setProperty("--level", level.toFixed(3));
  element.setAttribute("aria-valuenow", String(Math.round(level * 100)));
}

const isTyping = (target) => target instanceof HTMLInputElement;
const isButton = (target) => target instanceof HTMLButtonElement;

export class Ui {
  /** @param {object} actions connect, toggleMicrophone, toggleCamera, toggleManual, press, release, stop, say(text), useKey(key) */
  constructor(actions) {
    this.actions = actions;
    this.log = byId("log");
    this.player = byId("player");
    this.isHolding = false;
    this.errors = new Map();
    this.bindButtons();
    this.bindTalk();
    this.bindKeys();
  }

  bindButtons() {
    const actions = this.actions;
    byId("connect").onclick = () => actions.connect();
    byId("microphone").onclick = () => actions.toggleMicrophone();
    byId("camera").onclick = () => actions.toggleCamera();
    byId("manual").onclick = () => actions.toggleManual();
    byId("stop").onclick = () => actions.stop();
    byId("typed").onsubmit = (event) => {
      event.preventDefault();
      const text = byId("text").value.trim();
      if (!text || byId("text").disabled) return;
      byId("text").value = "";
      actions.say(text);
    };
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      byId("key-form").hidden = true;
      actions.useKey(byId("key").value);
    };
  }

  bindTalk() {
    const talk = byId("talk");
    talk.onpointerdown = (event) => {
      talk.setPointerCapture(event.pointerId);
      this.hold();
    };
    talk.onpointerup = talk.onpointercancel = talk.onlostpointercapture = () => this.letGo();
    talk.oncontextmenu = (event) => event.preventDefault(); // a long press on a phone
    window.addEventListener("blur", () => this.letGo());
  }

  bindKeys() {
    window.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") return this.actions.stop();
      if (isTyping(event.target)) return;
      if (event.code === "Space" && !byId("talk").hidden && (!isButton(event.target) || event.target.id === "talk")) {
        event.preventDefault();
        if (!event.repeat) this.hold();
        return;
      }
      if (event.repeat) return;
      const button = { m: "microphone", c: "camera", p: "manual" }[event.key.toLowerCase()];
      if (button) byId(button).click();
    });
    window.addEventListener("keyup", (event) => {
      if (event.code === "Space" && this.isHolding) {
        event.preventDefault();
        this.letGo();
      }
    });
  }

  hold() {
    if (this.isHolding || byId("talk").hidden) return;
    this.isHolding = true;
    byId("talk").classList.add("held");
    this.actions.press();
  }

  letGo() {
    if (!this.isHolding) return;
    this.isHolding = false;
    byId("talk").classList.remove("held");
    this.actions.release();
  }

  // ------------------------------------------------------------------ shows
  showState(state) {
    document.body.dataset.state = state;
    byId("status").textContent = WORDS[state] ?? state;
  }

  /** @param {{isWanted: boolean, isUp: boolean, transport: ?string, isMicrophoneOn: boolean, isCameraOn: boolean, isManual: boolean, canConnect: boolean}} view */
  showControls(view) {
    document.body.classList.toggle("connected", view.isWanted);
    byId("connect").textContent = view.isWanted ? "Hang up" : "Connect";
    byId("connect").disabled = !view.isWanted && !view.canConnect;
    const pressed = { microphone: view.isMicrophoneOn, camera: view.isCameraOn, manual: view.isManual };
    for (const [id, isOn] of Object.entries(pressed)) {
      byId(id).setAttribute("aria-pressed", String(isOn));
      byId(id).disabled = !view.isWanted;
    }
    for (const id of ["stop", "text", "send"]) byId(id).disabled = !view.isUp;
    this.showTalk(view.isManual && view.isUp);
    this.showTransport(view.transport);
  }

  showTransport(transport) {
    byId("transport").hidden = !transport;
    [byId("transport").textContent, byId("transport").title] = TRANSPORTS[transport] ?? ["", ""];
  }

  showTalk(isVisible) {
    const talk = byId("talk");
    const isNew = isVisible && talk.hidden;
    talk.hidden = !isVisible;
    // So that Space talks at once, instead of pressing the switch again.
    if (isNew && document.activeElement?.id === "manual") talk.focus();
  }

  showLevels(microphone, reply) {
    showMeter(byId("mic-meter"), microphone);
    showMeter(byId("reply-meter"), reply);
    byId("orb").style.setProperty("--level", Math.max(microphone, reply).toFixed(3));
  }

  showModel(health) {
    const names = { gone: "no server", loading: "loading", failed: "no model" };
    byId("model").textContent = names[health.state] ?? String(health.model ?? "model");
    const babble = byId("babble");
    babble.hidden = !(health.state === "ready" && health.is_babbling);
    babble.textContent =
      "This model babbles: its weights are random, so its words and its voice mean nothing. Start the server with a trained model for real answers.";
  }

  showLatency(milliseconds) {
    byId("latency").hidden = false;
    byId("latency").textContent = `${Math.round(milliseconds)} ms`;
  }

  /** @param {?string} text null hides the line */
  showStages(text) {
    byId("stages").hidden = !text;
    byId("stages").textContent = text ?? "";
  }

  /**
   * One line for each source, so that the end of one trouble does not hide another.
   * @param {"server"|"link"|"device"|"reply"} source
   * @param {?string} message null clears it
   */
  showError(source, message) {
    if ((this.errors.get(source) ?? null) === message) return;
    if (message) this.errors.set(source, message);
    else this.errors.delete(source);
    byId("error").hidden = this.errors.size === 0;
    byId("error").textContent = [...this.errors.values()].join("\n");
  }

  askForKey() {
    byId("key-form").hidden = false;
    byId("key").focus();
  }

  showPreview(stream) {
    byId("preview").hidden = !stream;
    byId("preview").srcObject = stream;
  }

  showHint(isVisible) {
    byId("hint").hidden = !isVisible;
  }
}

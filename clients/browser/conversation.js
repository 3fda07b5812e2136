// What the events mean: whose turn it is, what was said, how long the reply took. No DOM, no network.

import { stillTool } from "./still.js";

// A shorter press is a slip of the finger; servers refuse to commit less than 100 ms.
const SHORTEST_PRESS_MS = 250;

// How a turn sounded and what was said in it decide when it is over; how eagerly is the server's to choose.
const semanticVad = { type: "semantic_vad" };

/** The text of an item's parts; null for speech whose words are not known. */
function textOf(item) {
  const texts = item.content.map((part) => part.text ?? part.transcript ?? (part.type === "input_image" ? "(picture)" : null)).filter((text) => text !== null);
  return texts.length ? texts.join(" ") : null;
}

export class Conversation {
  /**
   * @param {(event: object) => void} send
   * @param {{onState: (state: string) => void, onTurn: (turn: object) => void, onLatency: (ms: number) => void,
   *          onStages: (metrics: object) => void, onError: (message: string) => void, onAwaitSound: () => void,
   *          onStillWanted: (callId: string) => void}} hooks
   *   A turn is {id, role, text, isSpoken, durationMs, isDone, isCut}; onTurn is called at each change of it.
   * @param {boolean} offersStills whether the model is told that it may ask for pictures (still.js)
   */
  constructor(send, hooks, offersStills) {
    this.send = send;
    this.hooks = hooks;
    this.offersStills = offersStills;
    this.turns = new Map();
    this.isManual = false;
    this.state = "offline";
    this.isAway = false; // the line is broken: the state is that, whatever still happens here
    this.turnEndedAt = null;
    this.soundedAt = null;
    this.silenceMs = null; // before the server told that the turn was over; null: not known yet
    this.responseId = null;
    this.speech = { startMs: 0, endMs: 0 };
    this.isActive = false;
    this.isPlaying = false;
    this.owesReply = false; // a picture was given that no reply has seen
    this.pressedAt = 0;
    this.isHeld = false; // the button to talk is down: whatever the server says, we are hearing
  }

  // ------------------------------------------------------------------ what the user does
  /** After each connect: asks for our settings and re-creates what was said before. */
  begin() {
    this.isAway = false;
    this.isActive = this.isPlaying = this.owesReply = false;
    this.turnEndedAt = null;
    this.configure();
    for (const turn of this.turns.values()) this.recreate(turn);
    this.setState("listening");
  }

  /** The line broke. */
  leave() {
    this.setState("reconnecting");
    this.isAway = true;
  }

  /** The line is back, and the session is the same: what happened meanwhile will be told. */
  comeBack() {
    this.isAway = false;
    this.setState(this.isHeld ? "hearing" : this.isPlaying ? "speaking" : this.isActive ? "thinking" : "listening");
  }

  configure() {
    const turn_detection = this.isManual ? null : semanticVad;
    const tools = this.offersStills ? { tools: [stillTool] } : {};
    this.send({ type: "session.update", session: { type: "realtime", audio: { input: { turn_detection } }, ...tools } });
  }

  recreate(turn) {
    turn.isDone = true;
    const text = turn.text || (turn.isSpoken && turn.role === "user" ? "(spoken words that were lost with the connection)" : "");
    if (!text) return;
    const type = turn.role === "user" ? "input_text" : "output_text";
    this.send({ type: "conversation.item.create", item: { id: turn.id, type: "message", role: turn.role, content: [{ type, text }] } });
    this.hooks.onTurn(turn);
  }

  setManual(isManual) {
    this.isManual = isManual;
    this.configure();
    this.send({ type: "input_audio_buffer.clear" });
  }

  say(text) {
    this.stop();
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    this.send({ type: "response.create" });
    this.endTurn(performance.now());
  }

  /** @param {number} pressedAt performance.now() of the press */
  press(pressedAt) {
    this.pressedAt = pressedAt;
    this.isHeld = true;
    this.stop();
    this.send({ type: "input_audio_buffer.clear" });
    this.setState("hearing");
  }

  /** @param {number} releasedAt performance.now() of the release */
  release(releasedAt) {
    this.isHeld = false;
    // Only the length matters: pushed speech has no events that say when it began and ended.
    this.speech = { startMs: this.pressedAt, endMs: releasedAt };
    if (releasedAt - this.pressedAt < SHORTEST_PRESS_MS) {
      this.send({ type: "input_audio_buffer.clear" });
      this.setState("listening");
      return;
    }
    this.send({ type: "input_audio_buffer.commit" });
    this.send({ type: "response.create" });
    this.endTurn(releasedAt);
  }

  /** Answers a call of `stillTool`. @param {{uri: string, width: number, height: number} | {error: string}} still */
  answerStill(call_id, still) {
    const { uri, ...told } = still;
    const add = (item) => this.send({ type: "conversation.item.create", item });
    add({ type: "function_call_output", call_id, output: JSON.stringify(told) });
    if (uri) add({ type: "message", role: "user", content: [{ type: "input_image", image_url: uri }] });
    this.owesReply = true;
    this.askForReply();
  }

  /** Not while another reply is made: the user may have spoken meanwhile. */
  askForReply() {
    if (!this.owesReply || this.isActive) return;
    this.owesReply = false;
    this.send({ type: "response.create" });
  }

  /** Stops the reply: its making, and what is still to be played. */
  stop() {
    if (this.isActive) this.send({ type: "response.cancel" });
    if (this.isActive || this.isPlaying) this.send({ type: "output_audio_buffer.clear" });
  }

  // ------------------------------------------------------------------ what the server tells
  handle(event) {
    const handler = HANDLERS[event.type];
    if (handler) handler.call(this, event);
  }

  setState(state) {
    this.isAway &&= state !== "offline";
    if (this.isAway || state === this.state) return;
    this.state = state;
    this.hooks.onState(state);
  }

  /** @param {number} at performance.now() when the turn was known to be over */
  endTurn(at) {
    this.turnEndedAt = at;
    this.soundedAt = this.silenceMs = null;
    this.setState("thinking");
  }

  soundHeard(at) {
    if (this.turnEndedAt === null) return;
    this.soundedAt ??= at;
    this.tellLatency();
  }

  /** How long the reply took from the end of speech. How long the server waited to be sure of that it tells last. */
  tellLatency() {
    if (this.turnEndedAt === null || this.soundedAt === null || this.silenceMs === null) return;
    this.hooks.onLatency(Math.max(0, this.soundedAt - this.turnEndedAt + this.silenceMs));
    this.turnEndedAt = null;
  }

  settle() {
    if (!this.isActive && !this.isPlaying && this.state !== "hearing") this.setState("listening");
  }

  turn(id, role) {
    if (!this.turns.has(id)) this.turns.set(id, { id, role, text: "", isSpoken: false, durationMs: null, isDone: false, isCut: false });
    return this.turns.get(id);
  }

  itemChanged(item, isDone) {
    if (item.type !== "message" || item.role === "system") return;
    const turn = this.turn(item.id, item.role);
    turn.isSpoken ||= item.content.some((part) => part.type.endsWith("_audio"));
    if (turn.isSpoken && turn.role === "user" && turn.durationMs === null) turn.durationMs = this.speech.endMs - this.speech.startMs;
    const text = textOf(item);
    // A cut reply's final text is what was heard of it, shorter than the deltas were.
    if (text !== null && (isDone || !turn.text)) turn.text = text;
    turn.isCut ||= item.status === "incomplete";
    turn.isDone ||= isDone;
    this.hooks.onTurn(turn);
  }

  addText(event) {
    const turn = this.turn(event.item_id, "assistant");
    turn.text += event.delta;
    this.hooks.onTurn(turn);
  }
}

const HANDLERS = {
  "input_audio_buffer.speech_started"(event) {
    this.speech.startMs = event.audio_start_ms;
    this.turnEndedAt = null;
    this.setState("hearing");
  },
  "input_audio_buffer.speech_stopped"(event) {
    this.speech.endMs = event.audio_end_ms;
    this.endTurn(performance.now());
  },
  "conversation.item.added"(event) {
    this.itemChanged(event.item, false);
  },
  "conversation.item.done"(event) {
    this.itemChanged(event.item, true);
  },
  "conversation.item.deleted"(event) {
    this.turns.delete(event.item_id);
  },
  "conversation.item.truncated"(event) {
    const turn = this.turns.get(event.item_id);
    if (!turn) return;
    this.hooks.onTurn(Object.assign(turn, { isCut: true }));
    // What it says now is what was heard of it; the event does not tell that.
    this.send({ type: "conversation.item.retrieve", item_id: event.item_id });
  },
  "conversation.item.retrieved"(event) {
    this.itemChanged(event.item, true);
  },
  "conversation.item.input_audio_transcription.completed"(event) {
    this.hooks.onTurn(Object.assign(this.turn(event.item_id, "user"), { text: event.transcript }));
  },
  "response.created"(event) {
    this.isActive = true;
    this.responseId = event.response.id;
    this.hooks.onAwaitSound();
    if (this.state !== "hearing") this.setState("thinking");
  },
  "response.output_audio_transcript.delta"(event) {
    this.addText(event);
  },
  "response.output_text.delta"(event) {
    this.addText(event);
  },
  "response.done"(event) {
    this.isActive = false;
    const { status, status_details: details, output } = event.response;
    for (const item of output) {
      if (item.type === "function_call" && item.name === stillTool.name) this.hooks.onStillWanted(item.call_id);
    }
    if (status === "failed") this.hooks.onError(details?.error?.message ?? "The reply failed.");
    this.askForReply();
    this.settle();
  },
  "output_audio_buffer.started"() {
    this.isPlaying = true;
    this.setState("speaking");
  },
  "output_audio_buffer.stopped"() {
    this.isPlaying = false;
    this.settle();
  },
  "output_audio_buffer.cleared"() {
    this.isPlaying = false;
    this.settle();
  },
  "x.turn.state"(event) {
    // Where this page plays by itself, the server is done long before the reply is.
    if (!this.isHeld && !(this.isPlaying && event.state === "listening")) this.setState(event.state);
  },
  "x.metrics"(event) {
    if (event.response_id === this.responseId) this.silenceMs = event.stages_ms.turn_end ?? 0; // typed: no silence
    this.tellLatency();
    this.hooks.onStages(event);
  },
  error(event) {
    // Stop may cross the reply's own end on the way: nothing is left to cancel then, and nobody needs to know.
    if (event.error.code !== "response_cancel_not_active") this.hooks.onError(event.error.message);
  },
};

// `@openai/agents-realtime` over WebSocket: zod checks each event, it calls tools and truncates by itself.

import { setTimeout as sleep } from "node:timers/promises";

import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

const RATE_HZ = 24_000;
const PIECE_MS = 20;
const REPLY_MS = 640;

const asked = [];
const errors = [];
const seen = [];
const waiting = [];
let numBytes = 0;

const weather = tool({
  name: "weather",
  description: "How it is there",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    asked.push(city);
    return "sunny";
  },
});

function note(what) {
  seen.push(what);
  for (const wake of waiting.splice(0)) wake();
}

async function until(what) {
  for (;;) {
    const index = seen.indexOf(what);
    if (index >= 0) {
      seen.splice(0, index + 1);
      return;
    }
    await new Promise((wake) => waiting.push(wake));
  }
}

function sound() {
  const pcm = new Int16Array(1.3 * RATE_HZ);
  for (let t = 0; t < 0.5 * RATE_HZ; t += 1) pcm[t] = 12_000 * Math.sin((2 * Math.PI * 300 * t) / RATE_HZ);
  return pcm;
}

async function say(session) {
  const pcm = sound();
  const size = (RATE_HZ * PIECE_MS) / 1000;
  for (let start = 0; start < pcm.length; start += size) {
    session.sendAudio(pcm.slice(start, start + size).buffer);
    await sleep(PIECE_MS);
  }
}

const agent = new RealtimeAgent({ name: "guide", instructions: "Be brief.", tools: [weather] });
const session = new RealtimeSession(agent, { transport: "websocket", model: "qwen3-omni" });
session.on("error", (error) => errors.push(JSON.stringify(error)));
session.on("audio", (event) => (numBytes += event.data.byteLength));
session.on("audio_interrupted", () => note("interrupted"));
session.on("transport_event", (event) => {
  if (event.type === "response.output_audio_transcript.delta") note(event.delta.trim());
});

await session.connect({ apiKey: "k", url: process.argv[2] });
for (const lastWord of ["four", "there"]) {
  await say(session);
  await until(lastWord);
  await sleep(REPLY_MS);
}
const heard = numBytes;
await say(session);
await until("word9");
const over = say(session);
await until("interrupted");
await over;
await until("please");
await sleep(REPLY_MS);
session.close();
console.log(JSON.stringify({ asked, errors, heard_s: heard / 48_000 }));
process.exit(0);

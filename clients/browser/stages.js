// Where the server says the milliseconds of a turn went, as one line of text.

const NAMES = {
  turn_end: "end of turn",
  encoder_tail: "encoder",
  prefill: "prefill",
  first_text: "first word",
  first_codec: "first code",
  first_pcm: "first sound",
};

/** @param {object} metrics an `x.metrics` event */
export function describeStages(metrics) {
  const stages = metrics.stages_ms ?? metrics;
  const parts = Object.entries(NAMES)
    .filter(([key]) => Number.isFinite(stages[key]))
    .map(([key, name]) => `${name} ${Math.round(stages[key])}`);
  return parts.length ? `${parts.join(" · ")} ms` : null;
}

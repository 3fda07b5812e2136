// Watches GET /healthz: whether a model is loaded, which one, and whether the server is there at all.

const PERIOD_MS = { loading: 1_000, ready: 2_500, failed: 4_000, gone: 1_500 };
const TIMEOUT_MS = 4_000;

async function ask() {
  const askedAt = performance.now();
  try {
    // 503 while loading still carries the JSON.
    const response = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    const health = await response.json();
    return health.state in PERIOD_MS ? health : { state: "failed", error: "The server's health report makes no sense." };
  } catch (error) {
    // A busy server is not a lost one: its call may still be fine.
    return error.name === "TimeoutError" ? null : { state: "gone", askedAt };
  }
}

/**
 * Calls onHealth({state: "loading"|"ready"|"failed"|"gone", model?, is_babbling?, error?}) again and again.
 * With "gone" comes `askedAt` (performance.now()): a call that was made later says more.
 */
export async function watchHealth(onHealth) {
  for (;;) {
    const health = await ask();
    if (health) onHealth(health);
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS[health?.state ?? "loading"]));
  }
}

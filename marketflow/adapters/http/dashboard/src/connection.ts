/**
 * What the stream's connection is, and what becomes of it: pure.
 *
 * A browser's EventSource gives up for good at the first answer that is no stream (503 while the service
 * starts), so the retries are our own.
 */

export type Connection =
  | { state: "connecting"; attempt: number }
  | { state: "live" }
  /** Lost; tried again at `until` (ms of the same clock as `now`). */
  | { state: "waiting"; attempt: number; until: number }
  /** Nobody looks: a hidden page keeps none of the few connections that a browser allows to a host. */
  | { state: "paused" };

export type Happening = "opened" | "failed" | "due" | "hidden" | "shown" | "retry";

const SHORTEST = 500;
const LONGEST = 10_000;

/** How long to wait after so many failures in a row, in ms: doubling, half of it by chance. */
export function backOff(attempt: number, chance: number): number {
  const whole = Math.min(LONGEST, SHORTEST * 2 ** attempt);
  return whole / 2 + (chance * whole) / 2;
}

export function next(now: Connection, happening: Happening, time: number, chance: number): Connection {
  switch (happening) {
    case "opened":
      return now.state === "connecting" ? { state: "live" } : now;
    case "failed": {
      if (now.state === "paused" || now.state === "waiting") return now;
      const attempt = now.state === "connecting" ? now.attempt : 0;
      return { state: "waiting", attempt: attempt + 1, until: time + backOff(attempt, chance) };
    }
    case "due":
    case "retry":
      return now.state === "waiting" ? { state: "connecting", attempt: now.attempt } : now;
    case "hidden":
      return { state: "paused" };
    case "shown":
      return now.state === "paused" ? { state: "connecting", attempt: 0 } : now;
  }
}

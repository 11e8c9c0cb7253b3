/**
 * The states of the stream's connection, as a pure state machine.
 *
 * A browser's EventSource gives up for good after the first answer that is not a stream (such as 503 while the
 * service starts), so we retry ourselves.
 */

export type Connection =
  | { state: "connecting"; attempt: number }
  | { state: "live" }
  /** Lost; the next attempt is at `until` (ms of the same clock as `now`). */
  | { state: "waiting"; attempt: number; until: number }
  /** The page is hidden. It closes its connection, since a browser allows only a few to a host. */
  | { state: "paused" };

export type Happening = "opened" | "failed" | "due" | "hidden" | "shown" | "retry";

const SHORTEST = 500;
const LONGEST = 10_000;

/** How long to wait after so many consecutive failures, in ms: it doubles, and half of it is random. */
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

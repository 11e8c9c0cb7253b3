import { expect, test } from "vitest";

import { type Connection, type Happening, backOff, next } from "../src/connection";

const START = { state: "connecting", attempt: 0 } as Connection;

function after(...happenings: Happening[]): Connection {
  return happenings.reduce((connection, happening) => next(connection, happening, 0, 1), START);
}

test("it opens", () => {
  expect(after("opened")).toEqual({ state: "live" });
});

test("a lost connection waits, and then tries again", () => {
  expect(after("opened", "failed")).toEqual({ state: "waiting", attempt: 1, until: 500 });
  expect(after("opened", "failed", "due")).toEqual({ state: "connecting", attempt: 1 });
  expect(after("opened", "failed", "due", "opened")).toEqual({ state: "live" });
});

test("each try that fails doubles the wait, up to a limit", () => {
  const waits: number[] = [];
  let connection = START;
  for (let attempt = 0; attempt < 8; attempt += 1) {
    connection = next(connection, "failed", 0, 1);
    if (connection.state === "waiting") waits.push(connection.until);
    connection = next(connection, "due", 0, 1);
  }
  expect(waits).toEqual([500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
});

test("opening resets the number of failures", () => {
  const connection = after("failed", "due", "failed", "due", "opened", "failed");
  expect(connection).toEqual({ state: "waiting", attempt: 1, until: 500 });
});

test("the random part shortens a wait by at most half", () => {
  expect([backOff(1, 0), backOff(1, 0.5), backOff(1, 1)]).toEqual([500, 750, 1_000]);
});

test("while it waits nothing restarts the wait", () => {
  const waiting = after("failed");
  expect(next(waiting, "failed", 400, 1)).toBe(waiting);
});

test("a retry by the user ends the wait", () => {
  expect(after("failed", "retry")).toEqual({ state: "connecting", attempt: 1 });
  expect(after("opened", "retry")).toEqual({ state: "live" });
});

test.each<Happening[][]>([[["opened"]], [["failed"]], [[]]])("hidden, it is given up, from any state: %s", (before) => {
  expect(after(...before, "hidden")).toEqual({ state: "paused" });
  expect(after(...before, "hidden", "due", "failed", "opened", "retry")).toEqual({ state: "paused" });
  expect(after(...before, "hidden", "shown")).toEqual(START);
});

test("a page that is shown again before its connection was closed keeps it", () => {
  expect(after("opened", "shown")).toEqual({ state: "live" });
});

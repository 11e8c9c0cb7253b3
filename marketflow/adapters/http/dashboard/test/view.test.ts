import { expect, test } from "vitest";

import { ServerClock } from "../src/clock";
import { queryOf, viewOf } from "../src/view";

const SYMBOLS = ["BTCUSDT", "ETHUSDT"];
const EXCHANGES = ["exchange1", "exchange2"];

test("a view survives being written to the address and read again", () => {
  for (const exchange of [null, "exchange2"]) {
    const view = { symbol: "ETHUSDT", exchange, interval: "15m" };
    expect(viewOf(queryOf(view), SYMBOLS, EXCHANGES)).toEqual(view);
  }
});

test("unknown values in an address are replaced by the default view", () => {
  const first = { symbol: "BTCUSDT", exchange: null, interval: "5s" };
  expect(viewOf("", SYMBOLS, EXCHANGES)).toEqual(first);
  expect(viewOf("?symbol=NONE&exchange=test1&interval=7m&other=1", SYMBOLS, EXCHANGES)).toEqual(first);
});

test("a small difference between clocks is ignored, a large one is corrected", () => {
  const clock = new ServerClock();
  clock.learn(10_000, 11_000);
  expect(clock.now(20_000)).toBe(20_000);
  clock.learn(3_610_000, 10_500);
  expect(clock.now(10_500)).toBe(3_610_500);
  clock.learn(10_000, 10_300);
  expect(clock.now(20_000)).toBe(20_000);
});

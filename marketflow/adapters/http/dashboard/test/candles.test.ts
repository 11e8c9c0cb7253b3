import { expect, test } from "vitest";

import type { Candle, Price } from "../src/api";
import { Candles, missing } from "../src/candles";

const SECOND = 1_000;

function candle(start: number, close = 1, closed = true): Candle {
  const bar = { open: close, high: close, low: close, close, average: close };
  const traded = { volume: 0.5, volume_updates: 2, vwap: close };
  return { start, end: start + SECOND, ...bar, updates: 3, ...traded, closed };
}

function price(timestamp: number, value: number): Price {
  return { symbol: "BTCUSDT", exchange: "exchange1", price: value, timestamp, volume: 0.25 };
}

function told(...given: Candle[]): Candles {
  const candles = new Candles(SECOND);
  candles.tell(given);
  return candles;
}

test("candles are in order of time, each start once, a later one replaces an earlier one", () => {
  const candles = told(candle(2_000), candle(3_000, 5, false));
  candles.tell([candle(0), candle(1_000), candle(3_000, 7)]);
  expect(candles.all.map((each) => each.start)).toEqual([0, 1_000, 2_000, 3_000]);
  expect(candles.last).toMatchObject({ close: 7, closed: true });
});

test("a live price changes the newest candle, but not the numbers that only the service knows", () => {
  const candles = told(candle(1_000, 5, false));
  candles.put(price(1_100, 9));
  candles.put(price(1_200, 2));
  expect(candles.last).toEqual({ ...candle(1_000, 5, false), high: 9, low: 2, close: 2 });
});

test("the live price with the later timestamp is the close", () => {
  const candles = told(candle(1_000, 5, false));
  candles.put(price(1_900, 6));
  candles.put(price(1_100, 8));
  expect(candles.last).toMatchObject({ high: 8, close: 6 });
});

test("a live price past the end begins a candle, without numbers of the service", () => {
  const candles = told(candle(1_000));
  const begun = { start: 4_000, end: 5_000, open: 7, updates: 0, volume: null, volume_updates: 0, vwap: null };
  expect(candles.put(price(4_321, 7))).toMatchObject({ ...begun, closed: false });
  expect(candles.all).toHaveLength(2);
});

test("a live price does not change an earlier candle", () => {
  const candles = told(candle(1_000), candle(2_000));
  expect(candles.put(price(1_500, 99))).toBeNull();
  expect(candles.all.map((each) => each.high)).toEqual([1, 1]);
});

test("the part that may still change begins with the oldest candle that is not closed", () => {
  expect(told(candle(0), candle(1_000, 1, false), candle(2_000, 1, false)).openFrom).toBe(1_000);
  expect(told(candle(0), candle(1_000)).openFrom).toBe(1_000);
  expect(told().openFrom).toBeUndefined();
});

test("a day begins at midnight UTC", () => {
  const days = new Candles(86_400_000);
  expect(days.put(price(Date.UTC(2026, 10, 22, 23, 59), 1))?.start).toBe(Date.UTC(2026, 10, 22));
});

test("a gap has as many places as candles are missing, up to a limit", () => {
  expect([...missing(candle(0), candle(1_000), SECOND, 10)]).toEqual([]);
  expect([...missing(candle(0), candle(3_000), SECOND, 10)]).toEqual([1_000, 2_000]);
  expect([...missing(candle(0), candle(99_000), SECOND, 2)]).toEqual([1_000, 2_000]);
});

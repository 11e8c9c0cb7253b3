import { expect, test } from "vitest";

import type { FeedHealth, Price } from "../src/api";
import { Prices, direction } from "../src/prices";

const NOW = 1_000_000;
const STALE_AFTER = 3_000;
const ALL = ["a", "b", "c"];

function price(exchange: string, value: number, age = 0): Price {
  return { symbol: "BTCUSDT", exchange, price: value, timestamp: NOW - age, volume: null };
}

function pricesOf(...given: Price[]): Prices {
  const prices = new Prices(STALE_AFTER);
  given.forEach((each) => prices.put(each));
  return prices;
}

test("the later timestamp counts, in any order of arrival", () => {
  const prices = pricesOf(price("a", 2, 10), price("a", 1, 20));
  expect(prices.get("BTCUSDT", "a")?.price).toBe(2);
});

test("of equal timestamps the later received counts", () => {
  expect(pricesOf(price("a", 2), price("a", 1)).get("BTCUSDT", "a")?.price).toBe(1);
});

test("the newest of some exchanges", () => {
  const prices = pricesOf(price("a", 1, 5), price("b", 2, 1), price("c", 3, 9));
  expect(prices.newest("BTCUSDT", ALL)?.exchange).toBe("b");
  expect(prices.newest("BTCUSDT", ["a", "c"])?.exchange).toBe("a");
  expect(prices.newest("ETHUSDT", ALL)).toBeUndefined();
});

test("the spread is highest minus lowest, and relative to the lowest", () => {
  const prices = pricesOf(price("a", 100), price("b", 102), price("c", 101));
  expect(prices.spread("BTCUSDT", ALL, NOW)).toEqual({ absolute: 2, relative: 0.02, lowest: "a", highest: "b" });
});

test("equal prices have a spread of zero", () => {
  expect(pricesOf(price("a", 5), price("b", 5)).spread("BTCUSDT", ALL, NOW)?.absolute).toBe(0);
});

test("a stale price does not count for the spread", () => {
  const prices = pricesOf(price("a", 100), price("b", 102, STALE_AFTER + 1), price("c", 101));
  expect(prices.spread("BTCUSDT", ALL, NOW)?.absolute).toBe(1);
});

test("one price alone has no spread", () => {
  expect(pricesOf(price("a", 100)).spread("BTCUSDT", ALL, NOW)).toBeNull();
  expect(pricesOf(price("a", 100), price("b", 1, STALE_AFTER + 1)).spread("BTCUSDT", ALL, NOW)).toBeNull();
});

test("an exchange that is not requested does not count for the spread", () => {
  expect(pricesOf(price("a", 1), price("b", 2), price("test1", 9)).spread("BTCUSDT", ALL, NOW)?.highest).toBe("b");
});

test("a price older than the limit is stale", () => {
  const prices = pricesOf();
  expect(prices.isStale(price("a", 1, STALE_AFTER), NOW)).toBe(false);
  expect(prices.isStale(price("a", 1, STALE_AFTER + 1), NOW)).toBe(true);
});

test("a first price has no direction", () => {
  expect(direction(undefined, 1)).toBe("same");
  expect([direction(1, 2), direction(2, 1), direction(1, 1)]).toEqual(["up", "down", "same"]);
});

test("an old price of a venue is stale only if the venue is", () => {
  const prices = new Prices(STALE_AFTER);
  const old = price("a", 1, STALE_AFTER + 1);
  const feed = { symbols: { BTCUSDT: "BTC/USDT" }, status: "connected" } as unknown as FeedHealth;
  prices.follow({ a: feed });
  expect(prices.isStale(old, NOW)).toBe(false);
  prices.follow({ a: { ...feed, status: "stale" } });
  expect(prices.isStale(price("a", 1, 0), NOW)).toBe(true);
  prices.follow({ a: { ...feed, symbols: null } });
  expect(prices.isStale(old, NOW)).toBe(true);
});

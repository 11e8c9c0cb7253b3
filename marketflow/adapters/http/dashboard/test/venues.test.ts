import { expect, test } from "vitest";

import type { FeedHealth } from "../src/api";
import { gapsOf, isAbsent, refusalOf, spellingOf, spellingsOf } from "../src/venues";

const LINES: FeedHealth = {
  status: "connected",
  last_update_age: 0.1,
  reconnects: 0,
  updates: { received: 0, accepted: 0, rejected: {}, cached: 0, expired: 0, dropped: {}, pending: 0 },
  kind: "lines",
  activity: null,
  rejected_symbols: [],
  gaps: 0,
  symbols: null,
};
const VENUE: FeedHealth = { ...LINES, kind: "kraken", activity: "live", symbols: { BTCUSDT: "BTC/USDT" } };

test("only a venue has names of its own, and only for its symbols", () => {
  const spellings = spellingsOf({ plain: LINES, kraken: VENUE });
  expect(spellingOf(spellings, "BTCUSDT", "kraken")).toBe("BTC/USDT");
  expect(spellingOf(spellings, "BTCUSDT", "plain")).toBe("");
  expect(spellingOf(spellings, "ETHUSDT", "kraken")).toBe("");
  expect(spellingOf(spellings, "BTCUSDT", "unheard")).toBe("");
});

test("a venue lacks the symbols that it has no name for; others lack none", () => {
  const spellings = spellingsOf({ plain: LINES, kraken: VENUE });
  expect(isAbsent(spellings, "ETHUSDT", "kraken")).toBe(true);
  expect(isAbsent(spellings, "constructor", "kraken")).toBe(true);
  expect(isAbsent(spellings, "BTCUSDT", "kraken")).toBe(false);
  expect(isAbsent(spellings, "ETHUSDT", "plain")).toBe(false);
  expect(isAbsent(spellings, "ETHUSDT", "unheard")).toBe(false);
});

test("refused symbols are named, very many are counted", () => {
  expect(refusalOf(VENUE)).toBe("");
  expect(refusalOf({ ...VENUE, rejected_symbols: ["XYZUSDT"] })).toBe("refuses XYZUSDT");
  expect(refusalOf({ ...VENUE, rejected_symbols: ["A", "B"] })).toBe("refuses A, B");
  expect(refusalOf({ ...VENUE, rejected_symbols: [..."ABCDEFGHIJ"] })).toBe("refuses A, B, C, D, E, F, G, H and 2 more");
});

test("missing trades are counted", () => {
  expect([0, 1, 1_200].map((gaps) => gapsOf({ ...VENUE, gaps }))).toEqual([
    "",
    "1 trade missing",
    "1,200 trades missing",
  ]);
});

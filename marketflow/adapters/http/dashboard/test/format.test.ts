import { describe, expect, test } from "vitest";

import {
  decimalsOf,
  formatAge,
  formatCount,
  formatDateTime,
  formatDuration,
  formatPrice,
  formatRate,
  formatShare,
  formatSpread,
  formatTime,
  formatVolume,
} from "../src/format";

describe("a price", () => {
  test.each([
    [100_150.75492142327, "100,150.75"],
    [3_050.1, "3,050.10"],
    [200.04, "200.0400"],
    [3.9, "3.9000"],
    [0.3, "0.30000"],
    [0.30000000000000004, "0.30000"],
    [0.0123456789, "0.012346"],
    [2e-7, "0.00000020000"],
    [2e-9, "2.0000e-9"],
    [1e12, "1,000,000,000,000.00"],
  ])("%d is %s", (price, text) => expect(formatPrice(price)).toBe(text));

  test("keeps its decimals while it moves by a few per cent", () => {
    for (const price of [100_000, 3_050, 200, 3.9, 0.3]) {
      expect(decimalsOf(price * 0.95)).toBe(decimalsOf(price * 1.05));
    }
  });

});

test.each([
  [12.3456789, 100_000, "12.35"],
  [0.0000456, 3.9, "0.000046"],
  [0, 0.3, "0.00000"],
])("the spread %d of prices about %d is %s", (absolute, price, text) =>
  expect(formatSpread(absolute, decimalsOf(price))).toBe(text),
);

test.each([
  [0, "0"],
  [0.0125, "0.0125"],
  [0.1 + 0.2, "0.3"],
  [0.00000123456789, "0.0000012346"],
  [421.5, "421.5"],
  [12_345.678, "12,346"],
  [98_765_432.1, "98,765,432"],
  [1e18, "1.0000e+18"],
  [5e-324, "4.9407e-324"],
])("the volume %d is %s", (volume, text) => expect(formatVolume(volume)).toBe(text));

test.each([
  [0.0435, "4.35 %"],
  [0.273, "27.3 %"],
  [0.00012, "0.012 %"],
  [0, "0.000 %"],
])("the part %d is %s", (share, text) => expect(formatShare(share)).toBe(text));

test.each([
  [0, "0.0 s"],
  [-400, "0.0 s"],
  [940, "0.9 s"],
  [9_940, "9.9 s"],
  [9_960, "10 s"],
  [59_400, "59 s"],
  [60_000, "1 min"],
  [83_000, "1 min 23 s"],
  [3_600_000, "1 h"],
  [90_060_000, "1 d 1 h"],
])("the age %d ms is %s", (milliseconds, text) => expect(formatAge(milliseconds)).toBe(text));

test("a duration never has 60 of anything", () => {
  const texts = Array.from({ length: 20_000 }, (_, index) => formatDuration(index * 7.3));
  expect(texts.filter((text) => /\b(60 s|60 min|24 h)/.test(text))).toEqual([]);
});

test("counts and rates", () => {
  expect(formatCount(1_234_567)).toBe("1,234,567");
  expect(formatRate(49.8)).toBe("50 /s");
  expect(formatRate(0.4)).toBe("0.4 /s");
  expect(formatRate(0)).toBe("0 /s");
});

test("times are UTC in every time zone", () => {
  expect(formatTime(1_795_343_351_549)).toBe("10:29:11");
  expect(formatDateTime(1_795_343_351_549)).toBe("2026-11-22 10:29:11");
});

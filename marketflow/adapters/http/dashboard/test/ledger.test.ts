import { expect, test } from "vitest";

import type { Counters } from "../src/api";
import { balance, reasons } from "../src/ledger";

const GOOD: Counters = {
  received: 15,
  accepted: 12,
  rejected: { malformed: 1, late: 2 },
  cached: 6,
  expired: 1,
  dropped: { memory: 3 },
  pending: 2,
};

test("a ledger that adds up", () => {
  expect(balance(GOOD)).toEqual({
    rejected: 3,
    dropped: 3,
    received: 15,
    accepted: 12,
    receivedHolds: true,
    acceptedHolds: true,
  });
});

test("one that does not, by as little as one line", () => {
  expect(balance({ ...GOOD, received: 16 })).toMatchObject({ receivedHolds: false, acceptedHolds: true });
  expect(balance({ ...GOOD, pending: 1 })).toMatchObject({ receivedHolds: true, acceptedHolds: false });
});

test("reasons are ordered by their counts, and only those that occurred are shown", () => {
  expect(reasons({ malformed: 7, symbol: 0, late: 60, duplicate: 8 }, String)).toBe("late 60, duplicate 8, malformed 7");
  expect(reasons({}, String)).toBe("");
});

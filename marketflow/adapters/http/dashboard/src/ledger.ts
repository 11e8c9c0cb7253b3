/** Checks whether the ledger's counters add up. */

import type { Counters } from "./api";

export interface Balance {
  rejected: number;
  dropped: number;
  /** accepted + rejected; must equal received. */
  received: number;
  /** cached + expired + dropped + pending; must equal accepted. */
  accepted: number;
  receivedHolds: boolean;
  acceptedHolds: boolean;
}

export function balance(updates: Counters): Balance {
  const rejected = sum(updates.rejected);
  const dropped = sum(updates.dropped);
  const received = updates.accepted + rejected;
  const accepted = updates.cached + updates.expired + dropped + updates.pending;
  return {
    rejected,
    dropped,
    received,
    accepted,
    receivedHolds: received === updates.received,
    acceptedHolds: accepted === updates.accepted,
  };
}

/** Counters by reason as text, the largest first: "late 60, malformed 7". */
export function reasons(counted: Record<string, number>, format: (count: number) => string): string {
  return Object.entries(counted)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([reason, count]) => `${reason} ${format(count)}`)
    .join(", ");
}

function sum(counted: Record<string, number>): number {
  return Object.values(counted).reduce((total, count) => total + count, 0);
}

/** What the page says about real exchanges, which are venues. It does not use the page. */

import type { FeedHealth } from "./api";
import { formatCount } from "./format";

/** How many refused symbols are named; the others are counted. */
const NAMED = 8;

/** Our symbols with the exchange's names for them, by exchange; null for exchanges that are no venues. */
export type Spellings = Record<string, Record<string, string> | null>;

export function spellingsOf(exchanges: Record<string, FeedHealth>): Spellings {
  return Object.fromEntries(Object.entries(exchanges).map(([name, feed]) => [name, feed.symbols]));
}

/** Whether an exchange is a venue that is not configured for this symbol, so that no price of it will come. */
export function isAbsent(spellings: Spellings, symbol: string, exchange: string): boolean {
  const names = spellings[exchange];
  return names != null && !Object.hasOwn(names, symbol);
}

/** The exchange's name for a symbol; empty if it has none. */
export function spellingOf(spellings: Spellings, symbol: string, exchange: string): string {
  return isAbsent(spellings, symbol, exchange) ? "" : (spellings[exchange]?.[symbol] ?? "");
}

/** "refuses XYZUSDT"; empty if it refuses none. */
export function refusalOf(feed: FeedHealth): string {
  const symbols = feed.rejected_symbols;
  if (symbols.length === 0) return "";
  const more = symbols.length > NAMED ? ` and ${formatCount(symbols.length - NAMED)} more` : "";
  return `refuses ${symbols.slice(0, NAMED).join(", ")}${more}`;
}

/** "12 trades missing"; empty if there are none. */
export function gapsOf(feed: FeedHealth): string {
  if (feed.gaps === 0) return "";
  return feed.gaps === 1 ? "1 trade missing" : `${formatCount(feed.gaps)} trades missing`;
}

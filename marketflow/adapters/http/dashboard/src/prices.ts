/** The newest price of every pair, and the spreads. It does not use the page. */

import type { FeedHealth, Price } from "./api";

export type Direction = "up" | "down" | "same";

export interface Spread {
  /** Highest minus lowest. */
  absolute: number;
  /** The spread as a fraction of the lowest price. */
  relative: number;
  lowest: string;
  highest: string;
}

export class Prices {
  readonly #newest = new Map<string, Price>();
  /** Venues by name, and whether they are connected. */
  readonly #venues = new Map<string, boolean>();

  /** A price older than `staleAfter`, in ms, is stale, like the feed that has sent no newer one. */
  constructor(private readonly staleAfter: number) {}

  /** Add an update. The one with the later timestamp counts; of equal ones the later received. */
  put(price: Price): boolean {
    const key = keyOf(price.symbol, price.exchange);
    const known = this.#newest.get(key);
    if (known !== undefined && price.timestamp < known.timestamp) return false;
    this.#newest.set(key, price);
    return true;
  }

  get(symbol: string, exchange: string): Price | undefined {
    return this.#newest.get(keyOf(symbol, exchange));
  }

  /** The newest price of a symbol on any of the exchanges; of equal times that of the later name, as in the API. */
  newest(symbol: string, exchanges: readonly string[]): Price | undefined {
    let newest: Price | undefined;
    for (const exchange of [...exchanges].sort()) {
      const price = this.get(symbol, exchange);
      if (price !== undefined && (newest === undefined || price.timestamp >= newest.timestamp)) newest = price;
    }
    return newest;
  }

  /** The spread between exchanges; null unless at least two have a price that is not stale. */
  spread(symbol: string, exchanges: readonly string[], now: number): Spread | null {
    let lowest: Price | undefined;
    let highest: Price | undefined;
    let count = 0;
    for (const exchange of exchanges) {
      const price = this.get(symbol, exchange);
      if (price === undefined || this.isStale(price, now)) continue;
      count += 1;
      if (lowest === undefined || price.price < lowest.price) lowest = price;
      if (highest === undefined || price.price > highest.price) highest = price;
    }
    if (count < 2 || lowest === undefined || highest === undefined) return null;
    const absolute = highest.price - lowest.price;
    return { absolute, relative: absolute / lowest.price, lowest: lowest.exchange, highest: highest.exchange };
  }

  /** The health of the feeds has come. */
  follow(feeds: Record<string, FeedHealth>): void {
    this.#venues.clear();
    for (const [name, feed] of Object.entries(feeds)) {
      if (feed.symbols !== null) this.#venues.set(name, feed.status === "connected");
    }
  }

  /** A venue tells us that it lives, so its old price is the price of a quiet market. Other feeds only send prices. */
  isStale(price: Price, now: number): boolean {
    const connected = this.#venues.get(price.exchange);
    if (connected !== undefined) return !connected;
    return now - price.timestamp > this.staleAfter;
  }
}

export function direction(from: number | undefined, to: number): Direction {
  if (from === undefined || from === to) return "same";
  return to > from ? "up" : "down";
}

function keyOf(symbol: string, exchange: string): string {
  return `${symbol} ${exchange}`;
}

/** Candles of one pair and interval: those of the service, and live changes since. It does not use the page. */

import type { Candle, Price } from "./api";

/** The service's names of intervals, and their lengths in ms. */
export const INTERVALS: ReadonlyMap<string, number> = new Map([
  ["1s", 1_000],
  ["5s", 5_000],
  ["15s", 15_000],
  ["1m", 60_000],
  ["5m", 300_000],
  ["15m", 900_000],
  ["1h", 3_600_000],
  ["1d", 86_400_000],
]);

/**
 * Candles in ascending order of time, each start once.
 *
 * A live price changes the newest candle, or begins one. Its number of updates, its average and its volume come only
 * from the service, since the stream may skip updates. For the same reason a candle's high and low may be wrong until
 * the service sends it again; `openFrom` is the start of the first such candle.
 */
export class Candles {
  #candles: Candle[] = [];
  #newest = -Infinity;

  constructor(readonly interval: number) {}

  get all(): readonly Candle[] {
    return this.#candles;
  }

  get first(): Candle | undefined {
    return this.#candles[0];
  }

  get last(): Candle | undefined {
    return this.#candles.at(-1);
  }

  at(start: number): Candle | undefined {
    return this.#candles.find((candle) => candle.start === start);
  }

  /** The start of the oldest candle that may still change; undefined without any candle. */
  get openFrom(): number | undefined {
    return (this.#candles.find((candle) => !candle.closed) ?? this.last)?.start;
  }

  /** Add candles of the service. If both have a candle with the same start, the service's replaces ours. */
  tell(told: readonly Candle[]): void {
    const byStart = new Map(this.#candles.map((candle) => [candle.start, candle]));
    for (const candle of told) byStart.set(candle.start, candle);
    this.#candles = [...byStart.values()].sort((one, other) => one.start - other.start);
  }

  /** Add a live price; returns the newest candle if it has changed. */
  put(price: Price): Candle | null {
    const start = Math.floor(price.timestamp / this.interval) * this.interval;
    const last = this.last;
    if (last !== undefined && start < last.start) return null;
    if (last === undefined || start > last.start) {
      this.#newest = price.timestamp;
      const only = price.price;
      const bar = { open: only, high: only, low: only, close: only, average: only };
      const unknown = { updates: 0, volume: null, volume_updates: 0, vwap: null };
      const candle = { start, end: start + this.interval, ...bar, ...unknown, closed: false };
      this.#candles.push(candle);
      return candle;
    }
    const newer = price.timestamp >= this.#newest;
    if (newer) this.#newest = price.timestamp;
    const moved = {
      ...last,
      high: Math.max(last.high, price.price),
      low: Math.min(last.low, price.price),
      close: newer ? price.price : last.close,
    };
    this.#candles[this.#candles.length - 1] = moved;
    return moved;
  }
}

/** Intervals without updates have no candle. The starts of at most so many of them, to show a visible gap. */
export function* missing(from: Candle, to: Candle, interval: number, most: number): Generator<number> {
  const last = Math.min(to.start, from.start + (most + 1) * interval);
  for (let start = from.start + interval; start < last; start += interval) yield start;
}

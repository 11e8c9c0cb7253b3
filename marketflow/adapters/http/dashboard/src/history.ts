/** The candles of one view: loaded by pages, kept true by asking again, moved by the stream in between. */

import { type Candle, type CandlePage, type Price, fetchCandles } from "./api";
import { Candles, INTERVALS } from "./candles";
import type { View } from "./view";

const PAGE = 500;
/** Candles of the last so many ms may be rewritten by late updates, and are asked for again. */
const LATENESS = 120_000;
/** ms between two tries to get a page that could not be had. */
const REST = 10_000;

export class History {
  #candles: Candles;
  readonly #stopped = new AbortController();
  #pageUnderWay = false;
  #exhausted = false;
  /** Not before this, on the page's clock, is a page asked for again that could not be had. */
  #restUntil = 0;
  /** Live prices that came while the service was being asked: its answer may not have them. */
  #meanwhile: Price[] = [];
  #asking = 0;
  /** From when on the service can tell, where earlier candles are in a store that is away. */
  knownFrom: number | null = null;

  /** `onTold` is called each time candles arrive, `onFailed` if the first request fails. */
  constructor(
    readonly view: View,
    private readonly onTold: () => void,
    private readonly onFailed: (error: unknown) => void,
  ) {
    this.#candles = new Candles(INTERVALS.get(view.interval) ?? 60_000);
  }

  get candles(): Candles {
    return this.#candles;
  }

  /** Nothing is asked or told from now on. */
  stop(): void {
    this.#stopped.abort();
  }

  /** The newest candles, in place of those that are known. */
  async load(): Promise<void> {
    await this.#ask({ limit: PAGE }, (page) => {
      this.#candles = new Candles(this.#candles.interval);
      this.#exhausted = false;
      this.knownFrom = page.known_from ?? null;
    });
  }

  /** Ask again for those that may have changed. */
  async renew(now: number): Promise<void> {
    const open = this.#candles.openFrom;
    if (open === undefined) return this.load();
    const start = Math.max(this.#candles.first?.start ?? 0, Math.min(open, now - LATENESS));
    const page = await this.#ask({ start, limit: 2 * PAGE });
    if (page !== null && page.next !== null) await this.load();
  }

  /** The page before the oldest, if there is one and it is not under way. */
  async earlier(): Promise<void> {
    const first = this.#candles.first;
    if (first === undefined || this.#exhausted || this.#pageUnderWay || performance.now() < this.#restUntil) return;
    this.#pageUnderWay = true;
    try {
      const page = await this.#ask({ end: first.start, limit: PAGE });
      if (page === null) this.#restUntil = performance.now() + REST;
      else this.#exhausted = page.candles.length === 0;
    } finally {
      this.#pageUnderWay = false;
    }
  }

  /** Take in a live price, if it is one of these; returns the candle that it changed. */
  put(price: Price): Candle | null {
    const { symbol, exchange } = this.view;
    if (price.symbol !== symbol || (exchange !== null && price.exchange !== exchange)) return null;
    if (this.#asking > 0) this.#meanwhile.push(price);
    // Without any history yet, one candle would look like all that there is.
    return this.#candles.last === undefined ? null : this.#candles.put(price);
  }

  async #ask(
    span: { start?: number; end?: number; limit: number },
    prepare?: (page: CandlePage) => void,
  ): Promise<CandlePage | null> {
    const { signal } = this.#stopped;
    if (this.#asking === 0) this.#meanwhile = [];
    this.#asking += 1;
    try {
      const page = await fetchCandles({ ...this.view, ...span }, signal);
      if (signal.aborted) return null;
      prepare?.(page);
      this.#candles.tell(page.candles);
      for (const price of this.#meanwhile) this.#candles.put(price);
      this.onTold();
      return page;
    } catch (error) {
      // What is shown stays; it is asked for again soon.
      if (!signal.aborted && this.#candles.first === undefined) this.onFailed(error);
      return null;
    } finally {
      this.#asking -= 1;
    }
  }
}

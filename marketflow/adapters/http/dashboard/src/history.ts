/** The candles of one view: loaded page by page, corrected by new requests, and changed by the stream meanwhile. */

import { type Candle, type CandlePage, type Price, fetchCandles } from "./api";
import { Candles, INTERVALS } from "./candles";
import type { View } from "./view";

const PAGE = 500;
/** Late updates may change candles of the last so many ms, so these are requested again. */
const LATENESS = 120_000;
/** ms between two attempts to get a page that was not available. */
const REST = 10_000;

export class History {
  #candles: Candles;
  readonly #stopped = new AbortController();
  #pageUnderWay = false;
  #exhausted = false;
  /** The time, on the page's clock, before which an unavailable page is not requested again. */
  #restUntil = 0;
  /** Live prices that arrived during a request: the answer may lack them. */
  #meanwhile: Price[] = [];
  #asking = 0;
  /** The time from which candles are complete, if earlier ones are in a store that is away. */
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

  /** Stop: no more requests and calls from now on. */
  stop(): void {
    this.#stopped.abort();
  }

  /** Load the newest candles, and replace the known ones. */
  async load(): Promise<void> {
    await this.#ask({ limit: PAGE }, (page) => {
      this.#candles = new Candles(this.#candles.interval);
      this.#exhausted = false;
      this.knownFrom = page.known_from ?? null;
    });
  }

  /** Request candles again that may have changed. */
  async renew(now: number): Promise<void> {
    const open = this.#candles.openFrom;
    if (open === undefined) return this.load();
    const start = Math.max(this.#candles.first?.start ?? 0, Math.min(open, now - LATENESS));
    const page = await this.#ask({ start, limit: 2 * PAGE });
    if (page !== null && page.next !== null) await this.load();
  }

  /** Load the page before the oldest candle, if there is one and it is not being loaded. */
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

  /** Add a live price if it belongs to this view; returns the candle that it changed. */
  put(price: Price): Candle | null {
    const { symbol, exchange } = this.view;
    if (price.symbol !== symbol || (exchange !== null && price.exchange !== exchange)) return null;
    if (this.#asking > 0) this.#meanwhile.push(price);
    // Before the history is loaded, a single candle would look like the whole history.
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
      // Keep the shown candles; the next request comes soon.
      if (!signal.aborted && this.#candles.first === undefined) this.onFailed(error);
      return null;
    } finally {
      this.#asking -= 1;
    }
  }
}

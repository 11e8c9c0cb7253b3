/** The panel around the chart: choice of pair and interval, the numbers of a candle, and candles as a table. */

import { type Candle, type Price, reasonOf } from "./api";
import { INTERVALS } from "./candles";
import { Chart } from "./chart";
import { byId, make, setAttribute, setText } from "./dom";
import { decimalsOf, formatCount, formatDateTime, formatPrice, formatVolume } from "./format";
import { History } from "./history";
import { type Spellings, isAbsent } from "./venues";
import type { View } from "./view";

/** How many candles the table has. */
const ROWS = 20;

export class ChartPanel {
  readonly #chart: Chart;
  readonly #symbol = byId("chart-symbol", HTMLSelectElement);
  readonly #exchange = byId("chart-exchange", HTMLSelectElement);
  readonly #intervals = byId("chart-intervals", HTMLElement);
  readonly #message = byId("chart-message", HTMLElement);
  readonly #note = byId("chart-note", HTMLElement);
  readonly #container = byId("chart", HTMLElement);
  readonly #table = byId("chart-table", HTMLTableSectionElement);
  readonly #newest = byId("chart-newest", HTMLButtonElement);
  readonly #details = byId("chart-details", HTMLDetailsElement);
  readonly #numbers = byId("legend", HTMLElement);
  #history: History | null = null;
  #spellings: Spellings = {};
  #pointed: number | null = null;
  readonly #moved = new Map<number, Candle>();

  constructor(private readonly onView: (view: View) => void) {
    this.#chart = new Chart(
      this.#container,
      (start) => {
        this.#pointed = start;
        this.#legend();
      },
      () => void this.#history?.earlier(),
      (away) => {
        this.#newest.hidden = !away;
      },
    );
    for (const interval of INTERVALS.keys()) this.#intervals.append(radio(interval));
    byId("chart-controls", HTMLFormElement).addEventListener("change", () => this.#chosen());
    this.#newest.addEventListener("click", () => this.#chart.toNewest());
    this.#details.addEventListener("toggle", () => this.#rows());
  }

  /** Offer these pairs. */
  offer(symbols: readonly string[], exchanges: readonly string[], spellings: Spellings): void {
    this.#spellings = spellings;
    this.#symbol.replaceChildren(...symbols.map((symbol) => make("option", { value: symbol }, symbol)));
    const all = make("option", { value: "" }, "all exchanges");
    this.#exchange.replaceChildren(all, ...exchanges.map((name) => make("option", { value: name }, name)));
  }

  /** Show a view, and load its history again. */
  show(view: View): void {
    this.#history?.stop();
    this.#moved.clear();
    this.#symbol.value = view.symbol;
    this.#exchange.value = view.exchange ?? "";
    const chosen = this.#intervals.querySelector(`input[value="${view.interval}"]`);
    if (chosen instanceof HTMLInputElement) chosen.checked = true;
    this.#say("Loading candles …");
    this.#chart.show([], 0);
    let first = true;
    const history = new History(
      view,
      () => {
        this.#told(history);
        if (first) this.#chart.toNewest();
        first = false;
      },
      (error) => this.#say(`No candles yet: ${reasonOf(error)}.`),
    );
    this.#history = history;
    this.#legend();
    void history.load();
  }

  put(price: Price): void {
    const candle = this.#history?.put(price);
    if (candle) this.#moved.set(candle.start, candle);
  }

  /** Show the changes by the stream. */
  paint(): void {
    const history = this.#history;
    if (history === null || this.#moved.size === 0) return;
    const { all, interval } = history.candles;
    const shown = all.length - this.#moved.size - 1;
    const after = all.slice(Math.max(0, shown));
    const gap = after.some((candle, index) => candle.start - (after[index - 1]?.start ?? candle.start) > interval);
    if (gap) this.#chart.show(all, interval);
    else for (const candle of this.#moved.values()) this.#chart.update(candle);
    this.#moved.clear();
    this.#legend();
  }

  /** Request candles again that may have changed. */
  renew(now: number): void {
    void this.#history?.renew(now);
  }

  /** Load the view's history again, after a time without messages. */
  reload(): void {
    void this.#history?.load();
  }

  recolour(): void {
    this.#chart.recolour();
  }

  #chosen(): void {
    const checked = this.#intervals.querySelector("input:checked");
    const interval = checked instanceof HTMLInputElement ? checked.value : "1m";
    this.onView({ symbol: this.#symbol.value, exchange: this.#exchange.value || null, interval });
  }

  #told(history: History): void {
    const { all, interval } = history.candles;
    this.#moved.clear();
    this.#chart.show(all, interval);
    this.#say(all.length === 0 ? this.#whyEmpty(history.view) : "");
    const { knownFrom } = history;
    setText(
      this.#note,
      knownFrom === null ? "" : `Before ${formatDateTime(knownFrom)}: not known while PostgreSQL is away.`,
    );
    this.#legend();
    this.#rows();
    const { symbol, exchange, interval: name } = history.view;
    setAttribute(this.#container, "aria-label", `Candle chart of ${symbol}, ${exchange ?? "all exchanges"}, ${name}`);
  }

  #whyEmpty({ symbol, exchange }: View): string {
    if (exchange !== null && isAbsent(this.#spellings, symbol, exchange)) {
      return `No candles: ${exchange} is not configured for ${symbol}.`;
    }
    return "No updates yet: candles appear with the first.";
  }

  #say(text: string): void {
    setText(this.#message, text);
    this.#message.hidden = text === "";
  }

  #legend(): void {
    const candles = this.#history?.candles;
    const candle = (this.#pointed === null ? undefined : candles?.at(this.#pointed)) ?? candles?.last;
    const decimals = decimalsOf(candle?.close ?? 1);
    const price = (value: number | undefined) => (value === undefined ? "–" : formatPrice(value, decimals));
    // Numbers that only the service knows are not shown for a candle that it has not sent yet.
    const told = candle !== undefined && candle.updates > 0;
    const fields = {
      open: price(candle?.open),
      high: price(candle?.high),
      low: price(candle?.low),
      close: price(candle?.close),
      average: price(told ? candle.average : undefined),
      updates: told ? formatCount(candle.updates) : "–",
      volume: volumeOf(candle),
      vwap: price(candle?.vwap ?? undefined),
      time: candle === undefined ? "" : formatDateTime(candle.start),
    };
    for (const [name, text] of Object.entries(fields)) setText(byId(`legend-${name}`, HTMLElement), text);
    const falls = candle !== undefined && candle.close < candle.open;
    setAttribute(this.#numbers, "data-moved", falls ? "down" : "up");
    // The same for all candles of the view, so that the legend does not jump while one points at them.
    setAttribute(this.#numbers, "data-volumes", candles?.all.some(hasVolume) ? "" : null);
  }

  #rows(): void {
    if (!this.#details.open) return;
    const candles = this.#history?.candles.all.slice(-ROWS).reverse() ?? [];
    const volumes = candles.some(hasVolume);
    setAttribute(this.#table.closest("table") as Element, "data-volumes", volumes ? "" : null);
    const rows = candles.map((candle) => {
      const cells = [candle.open, candle.high, candle.low, candle.close].map((value) => formatPrice(value));
      cells.push(formatCount(candle.updates));
      if (volumes) cells.push(volumeOf(candle), candle.vwap === null ? "–" : formatPrice(candle.vwap));
      const start = make("th", { scope: "row" }, formatDateTime(candle.start));
      return make("tr", {}, start, ...cells.map((text) => make("td", {}, text)));
    });
    this.#table.replaceChildren(...rows);
  }
}

function hasVolume(candle: Candle): boolean {
  return candle.volume_updates > 0;
}

/** The volume of a candle, and of how many updates it is if it is not of all. */
function volumeOf(candle: Candle | undefined): string {
  if (candle === undefined || candle.volume === null) return "–";
  const volume = formatVolume(candle.volume);
  return candle.volume_updates < candle.updates ? `${volume} (of ${formatCount(candle.volume_updates)})` : volume;
}

function radio(interval: string): HTMLElement {
  const input = make("input", { type: "radio", name: "interval", value: interval });
  return make("label", {}, input, make("span", {}, interval));
}

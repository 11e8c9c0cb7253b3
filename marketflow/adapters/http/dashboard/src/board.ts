/** The table of prices: a row for each symbol, a column for each exchange, and the spread between them. */

import type { FeedStatus, Price } from "./api";
import { make, setAttribute, setText } from "./dom";
import { decimalsOf, formatAge, formatPrice, formatShare, formatSpread, formatVolume } from "./format";
import { type Prices, type Spread, direction } from "./prices";
import { roving } from "./roving";
import type { View } from "./view";

/** A price younger than this, in ms, has the age "now". */
const NOW = 1_000;

const ARROWS = { up: "▲", down: "▼", same: "" } as const;

interface Cell {
  symbol: string;
  exchange: string;
  place: HTMLTableCellElement;
  button: HTMLButtonElement;
  arrow: HTMLElement;
  number: HTMLElement;
  age: HTMLElement;
  end: HTMLElement;
  volume: HTMLElement;
  shown: Price | undefined;
}

interface Row {
  symbol: string;
  button: HTMLButtonElement;
  cells: Cell[];
  spread: HTMLElement;
  relative: HTMLElement;
}

export class Board {
  #rows: Row[] = [];
  #exchanges: readonly string[] = [];
  readonly #statuses = new Map<string, HTMLElement[]>();

  constructor(
    private readonly table: HTMLTableElement,
    private readonly prices: Prices,
    private readonly choose: (symbol: string, exchange: string | null) => void,
  ) {
    roving(table);
  }

  /** Build the table again. */
  shape(symbols: readonly string[], exchanges: readonly string[]): void {
    this.#exchanges = exchanges;
    this.#statuses.clear();
    setAttribute(this.table, "data-volumes", null);
    this.#rows = symbols.map((symbol) => this.#row(symbol));
    const body = make("tbody", { role: "rowgroup" });
    for (const row of this.#rows) {
      const heading = make("th", { scope: "row", role: "rowheader" }, row.button);
      const spread = make("td", { class: "spread", role: "cell" }, row.spread, row.relative);
      body.append(make("tr", { role: "row" }, heading, ...row.cells.map((cell) => cell.place), spread));
    }
    this.table.querySelectorAll("thead, tbody").forEach((part) => part.remove());
    this.table.append(this.#head(), body);
    this.table.querySelector("button")?.setAttribute("tabindex", "0");
  }

  /** Show changed prices, and update all ages. */
  paint(now: number): void {
    for (const row of this.#rows) {
      for (const cell of row.cells) this.#paintCell(cell, now);
      this.#paintSpread(row, now);
    }
  }

  /** Mark the pair that the chart shows. */
  mark(view: View): void {
    for (const row of this.#rows) {
      const ours = row.symbol === view.symbol;
      setAttribute(row.button, "aria-pressed", String(ours && view.exchange === null));
      setAttribute(row.button.closest("tr") as Element, "data-chosen", ours ? "" : null);
      for (const cell of row.cells) {
        setAttribute(cell.button, "aria-pressed", String(ours && view.exchange === cell.exchange));
      }
    }
  }

  /** Show the state of a feed in the head of its column, and on narrow screens beside its prices. */
  status(exchange: string, status: FeedStatus | "unknown"): void {
    for (const element of this.#statuses.get(exchange) ?? []) {
      setAttribute(element, "data-status", status);
      setText(element, status);
    }
  }

  #head(): HTMLTableSectionElement {
    const heading = (...children: (Node | string)[]) =>
      make("th", { scope: "col", role: "columnheader" }, ...children);
    const columns = this.#exchanges.map((exchange) =>
      heading(make("span", { class: "name" }, exchange), " ", this.#status(exchange)),
    );
    const row = make("tr", { role: "row" }, heading("Pair"), ...columns, heading("Spread"));
    return make("thead", { role: "rowgroup" }, row);
  }

  #status(exchange: string): HTMLElement {
    const element = make("span", { class: "status" });
    this.#statuses.set(exchange, [...(this.#statuses.get(exchange) ?? []), element]);
    return element;
  }

  #row(symbol: string): Row {
    const button = make("button", { class: "symbol", tabindex: "-1" }, symbol);
    button.append(make("span", { class: "hidden" }, " chart of all exchanges"));
    button.addEventListener("click", () => this.choose(symbol, null));
    return {
      symbol,
      button,
      cells: this.#exchanges.map((exchange) => this.#cell(symbol, exchange)),
      spread: make("span", { class: "number" }, "–"),
      relative: make("span", { class: "relative" }),
    };
  }

  #cell(symbol: string, exchange: string): Cell {
    const arrow = make("span", { class: "arrow", role: "img", "aria-hidden": "true" });
    const number = make("span", { class: "number" }, "–");
    const age = make("span", { class: "age" });
    const end = make("span", { class: "end" });
    const label = make("span", { class: "hidden" }, `${symbol} on ${exchange}: `);
    const button = make("button", { class: "price", tabindex: "-1" }, label, arrow, number);
    button.addEventListener("click", () => this.choose(symbol, exchange));
    // Only visible on a narrow screen, which hides the columns' heads; screen readers use the label.
    const where = make("span", { class: "where", "aria-hidden": "true" }, exchange, " ", this.#status(exchange));
    const below = make("span", { class: "below" }, end, " ", age);
    // Has a line of its own once any price came with a volume, so that the table does not jump from update to update.
    const volume = make("span", { class: "volume" });
    const place = make("td", { role: "cell" }, where, button, below, volume);
    return { symbol, exchange, place, button, arrow, number, age, end, volume, shown: undefined };
  }

  #paintCell(cell: Cell, now: number): void {
    const price = this.prices.get(cell.symbol, cell.exchange);
    if (price === undefined) return;
    if (price !== cell.shown) {
      const moved = direction(cell.shown?.price, price.price);
      if (moved !== "same") {
        setAttribute(cell.button, "data-moved", moved);
        setAttribute(cell.arrow, "aria-label", moved);
        setAttribute(cell.arrow, "aria-hidden", null);
        setText(cell.arrow, ARROWS[moved]);
      }
      cell.shown = price;
      setText(cell.number, formatPrice(price.price));
      setText(cell.volume, price.volume === null ? "" : `vol ${formatVolume(price.volume)}`);
      if (price.volume !== null) setAttribute(this.table, "data-volumes", "");
    }
    const stale = this.prices.isStale(price, now);
    const milliseconds = now - price.timestamp;
    const age = milliseconds < NOW ? "now" : formatAge(milliseconds);
    setAttribute(cell.place, "data-stale", stale ? "" : null);
    setText(cell.age, stale ? `stale, ${age}` : age);
  }

  #paintSpread(row: Row, now: number): void {
    const spread = this.prices.spread(row.symbol, this.#exchanges, now);
    for (const cell of row.cells) setText(cell.end, endOf(cell.exchange, spread));
    if (spread === null) {
      setText(row.spread, "–");
      setText(row.relative, "");
      return;
    }
    const decimals = decimalsOf(this.prices.get(row.symbol, spread.lowest)?.price ?? spread.absolute);
    setText(row.spread, formatSpread(spread.absolute, decimals));
    setText(row.relative, formatShare(spread.relative));
  }
}

/** Whether an exchange has the highest or the lowest price. */
function endOf(exchange: string, spread: Spread | null): string {
  if (spread === null || spread.absolute === 0) return "";
  return exchange === spread.lowest ? "low" : exchange === spread.highest ? "high" : "";
}

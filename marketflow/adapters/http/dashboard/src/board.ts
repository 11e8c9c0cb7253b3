/** The table of prices: a row for each symbol, a column for each exchange, and the spread between them. */

import type { FeedStatus, Price } from "./api";
import { make, setAttribute, setText } from "./dom";
import { decimalsOf, formatAge, formatPrice, formatShare, formatSpread, formatVolume } from "./format";
import { type Prices, type Spread, direction } from "./prices";
import { roving } from "./roving";
import { type Spellings, isAbsent, spellingOf } from "./venues";
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
  /** Why it says nothing, for screen readers; empty as long as there is no reason. */
  why: HTMLElement;
  /** The exchange is not configured for this symbol, so the cell stays empty. */
  absent: boolean;
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
  #spellings: Spellings = {};
  /** The symbols that exchanges refuse. */
  readonly #refused = new Map<string, readonly string[]>();
  readonly #statuses = new Map<string, HTMLElement[]>();

  constructor(
    private readonly table: HTMLTableElement,
    private readonly prices: Prices,
    private readonly choose: (symbol: string, exchange: string | null) => void,
  ) {
    roving(table);
  }

  /** Build the table again. */
  shape(symbols: readonly string[], exchanges: readonly string[], spellings: Spellings): void {
    this.#exchanges = exchanges;
    this.#spellings = spellings;
    const venues = exchanges.some((exchange) => spellings[exchange] != null);
    setAttribute(this.table, "data-venues", venues ? "" : null);
    this.#statuses.clear();
    // Every trade of a venue has a volume: the line for it is there from the beginning.
    setAttribute(this.table, "data-volumes", venues ? "" : null);
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

  /** Learn which symbols an exchange refuses: no price of them will come. */
  refuse(exchange: string, symbols: readonly string[]): void {
    this.#refused.set(exchange, symbols);
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
    const absent = isAbsent(this.#spellings, symbol, exchange);
    const arrow = make("span", { class: "arrow", role: "img", "aria-hidden": "true" });
    const number = make("span", { class: "number" }, "–");
    const age = make("span", { class: "age" });
    const end = make("span", { class: "end" });
    const label = make("span", { class: "hidden" }, `${symbol} on ${exchange}: `);
    const why = make("span", { class: "hidden" });
    const button = make("button", { class: "price", tabindex: "-1" }, label, arrow, number, why);
    if (!absent) button.addEventListener("click", () => this.choose(symbol, exchange));
    // Only visible on a narrow screen, which hides the columns' heads; screen readers use the label.
    const where = make("span", { class: "where", "aria-hidden": "true" }, exchange, " ", this.#status(exchange));
    const below = make("span", { class: "below" }, end, " ", age);
    // Has a line of its own once any price came with a volume, so that the table does not jump from update to update.
    const volume = make("span", { class: "volume" });
    const spelling = make("span", { class: "spelling" }, spellingOf(this.#spellings, symbol, exchange));
    setAttribute(spelling, "title", spelling.textContent ? `${symbol} is ${spelling.textContent} at ${exchange}` : null);
    const place = make("td", { role: "cell" }, where, button, below, volume, spelling);
    const cell = { symbol, exchange, place, button, arrow, number, age, end, volume, why, absent, shown: undefined };
    // It can still be reached with the arrow keys, so that everybody learns the reason.
    if (absent) {
      setAttribute(button, "aria-disabled", "true");
      explain(cell, `${exchange} is not configured for ${symbol}`);
      setText(age, "not configured");
    }
    return cell;
  }

  #paintCell(cell: Cell, now: number): void {
    if (cell.absent) return;
    const price = this.prices.get(cell.symbol, cell.exchange);
    const refused = this.#refused.get(cell.exchange)?.includes(cell.symbol) ?? false;
    explain(cell, refused ? `${cell.exchange} refuses ${cell.symbol}` : "");
    setAttribute(cell.place, "data-refused", refused && price === undefined ? "" : null);
    if (price === undefined) {
      setText(cell.age, refused ? "refused" : "");
      return;
    }
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

/** Say why a cell has no new price; with an empty text nothing. */
function explain(cell: Cell, why: string): void {
  setAttribute(cell.button, "title", why || null);
  setText(cell.why, why && `(${why})`);
}

/** Whether an exchange has the highest or the lowest price. */
function endOf(exchange: string, spread: Spread | null): string {
  if (spread === null || spread.absolute === 0) return "";
  return exchange === spread.lowest ? "low" : exchange === spread.highest ? "high" : "";
}

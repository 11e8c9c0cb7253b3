/** Which pair and interval is looked at: kept in the address, so that a reload or a link shows it again. */

import { INTERVALS } from "./candles";

export interface View {
  symbol: string;
  /** null: all exchanges of the mode. */
  exchange: string | null;
  interval: string;
}

/** Short enough for a chart that moves, soon after the first start too. */
const DEFAULT_INTERVAL = "5s";

/** The view that a query string asks for, as far as there is such a thing. */
export function viewOf(query: string, symbols: readonly string[], exchanges: readonly string[]): View {
  const asked = new URLSearchParams(query);
  const symbol = asked.get("symbol");
  const exchange = asked.get("exchange");
  const interval = asked.get("interval");
  return {
    symbol: symbol !== null && symbols.includes(symbol) ? symbol : (symbols[0] ?? ""),
    exchange: exchange !== null && exchanges.includes(exchange) ? exchange : null,
    interval: interval !== null && INTERVALS.has(interval) ? interval : DEFAULT_INTERVAL,
  };
}

export function queryOf(view: View): string {
  const query = new URLSearchParams({ symbol: view.symbol });
  if (view.exchange !== null) query.set("exchange", view.exchange);
  query.set("interval", view.interval);
  return `?${query}`;
}

/** The shown pair and interval. They are in the address, so that a reload or a link shows them again. */

import { INTERVALS } from "./candles";

export interface View {
  symbol: string;
  /** null: all exchanges of the mode. */
  exchange: string | null;
  interval: string;
}

/** The default interval, so short that the chart moves, even soon after the first start. */
const DEFAULT_INTERVAL = "5s";

/** The view in a query string, as far as it is valid. */
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

/** Connects the parts of the page: requests, the stream, and painting. */

import "./style.css";

import { type Exchange, type Mode, type Price, fetchExchanges, fetchHealth, fetchPrices, fetchSymbols } from "./api";
import { Banner } from "./banner";
import { Board } from "./board";
import { ServerClock } from "./clock";
import { byId, numberOf } from "./dom";
import { formatPrice } from "./format";
import { HealthPanel } from "./health";
import { ModeSwitch } from "./mode";
import { ChartPanel } from "./panel";
import { Prices } from "./prices";
import { Stream } from "./stream";
import { restoreTheme, themeSwitch } from "./theme";
import { type Spellings, spellingsOf } from "./venues";
import { type View, queryOf, viewOf } from "./view";

/** The time between two repaints, in ms; more would not be noticed. */
const PAINT = 250;
/** The times between two requests for health, and for candles. */
const ASK_HEALTH = 2_000;
const ASK_CANDLES = 3_000;

restoreTheme();

const clock = new ServerClock();
const prices = new Prices(numberOf("stale-after"));
const health = new HealthPanel();
const board = new Board(byId("board", HTMLTableElement), prices, (symbol, exchange) =>
  look({ ...view, symbol, exchange }),
);
const panel = new ChartPanel(look);
const stream = new Stream("/stream", hear, (connection) => {
  banner.show(connection, clock.now());
  if (connection.state !== "live") return;
  outdated = true;
  void ask();
});
const banner = new Banner(() => stream.happen("retry"));
const mode = new ModeSwitch(() => {
  outdated = true;
  void ask();
});
themeSwitch(() => panel.recolour());

let view: View = { symbol: "", exchange: null, interval: "" };
let exchanges: readonly string[] = [];
let laidOut = "";
let knownMode: Mode | null = null;
/** Whether the page may have missed data that the stream does not send. */
let outdated = true;
let asking = false;

stream.start();
window.setInterval(() => void ask(), ASK_HEALTH);
window.setInterval(() => {
  if (!document.hidden && stream.connection.state === "live") panel.renew(clock.now());
}, ASK_CANDLES);
window.setInterval(() => {
  if (document.hidden) return;
  board.paint(clock.now());
  panel.paint();
  banner.tick();
  title();
}, PAINT);

function hear(price: Price): void {
  prices.put(price);
  panel.put(price);
}

/** Request health, and all data that is outdated; one request at a time. */
async function ask(): Promise<void> {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const { health: report, serverTime } = await fetchHealth();
    if (serverTime !== null) clock.learn(serverTime);
    health.show(report);
    prices.follow(report.exchanges);
    for (const [name, feed] of Object.entries(report.exchanges)) {
      board.status(name, feed.status);
      board.refuse(name, feed.rejected_symbols);
    }
    mode.show(report.mode);
    banner.answered(true);
    if (report.mode !== knownMode || stream.connection.state !== "live") outdated = true;
    if (outdated && report.status !== "unavailable") {
      outdated = false;
      await load(report.mode, spellingsOf(report.exchanges)).catch(() => {
        outdated = true;
      });
      for (const [name, feed] of Object.entries(report.exchanges)) board.status(name, feed.status);
    }
  } catch {
    // The stream may not have noticed it: a connection can be dead without being closed.
    health.lost();
    for (const exchange of exchanges) board.status(exchange, "unknown");
    banner.answered(false);
    stream.happen("failed");
  } finally {
    asking = false;
  }
}

/** Request all data of the page again. */
async function load(current: Mode, spellings: Spellings): Promise<void> {
  const [symbols, all, newest] = await Promise.all([fetchSymbols(), fetchExchanges(), fetchPrices()]);
  exchanges = all.filter((exchange: Exchange) => exchange.mode === current).map((exchange) => exchange.name);
  for (const price of newest) prices.put(price);
  const layout = JSON.stringify([symbols, exchanges, spellings]);
  if (layout === laidOut) {
    panel.reload();
  } else {
    board.shape(symbols, exchanges, spellings);
    panel.offer(symbols, exchanges, spellings);
    look(viewOf(location.search, symbols, exchanges));
    laidOut = layout;
  }
  knownMode = current;
  board.paint(clock.now());
}

function look(chosen: View): void {
  view = chosen;
  history.replaceState(null, "", queryOf(view));
  board.mark(view);
  panel.show(view);
  title();
}

/** Show the chosen price in the tab's title while it is live. */
function title(): void {
  const on = view.exchange === null ? exchanges : [view.exchange];
  const newest = prices.newest(view.symbol, on);
  const live = stream.connection.state === "live" && newest !== undefined;
  const text = live ? `${formatPrice(newest.price)} ${view.symbol} · marketflow` : "marketflow";
  if (document.title !== text) document.title = text;
}

/** The states of feeds and stores, and the ledger. */

import type { Counters, FeedHealth, Health, StoreHealth } from "./api";
import { announce } from "./announce";
import { byId, make, setAttribute, setText } from "./dom";
import { formatAge, formatCount, formatDateTime, formatDuration, formatRate } from "./format";
import { type Balance, balance, reasons } from "./ledger";
import { gapsOf, refusalOf } from "./venues";

interface LedgerLine {
  name: string;
  kind: "head" | "part" | "sum";
  value: (updates: Counters, sums: Balance) => number;
  holds?: (sums: Balance) => boolean;
}

const LEDGER: readonly LedgerLine[] = [
  { name: "Received", kind: "head", value: (updates) => updates.received },
  { name: "accepted", kind: "part", value: (updates) => updates.accepted },
  { name: "rejected", kind: "part", value: (_, sums) => sums.rejected },
  { name: "together", kind: "sum", value: (_, sums) => sums.received, holds: (sums) => sums.receivedHolds },
  { name: "Accepted", kind: "head", value: (updates) => updates.accepted },
  { name: "cached", kind: "part", value: (updates) => updates.cached },
  { name: "expired", kind: "part", value: (updates) => updates.expired },
  { name: "dropped", kind: "part", value: (_, sums) => sums.dropped },
  { name: "pending", kind: "part", value: (updates) => updates.pending },
  { name: "together", kind: "sum", value: (_, sums) => sums.accepted, holds: (sums) => sums.acceptedHolds },
];

/** The elements of a feed that change. */
interface FeedLine {
  status: HTMLElement;
  age: HTMLElement;
  rate: HTMLElement;
  reconnects: HTMLElement;
  /** Only those of a venue have a second row. */
  venue: { activity: HTMLElement; refusal: HTMLElement; gaps: HTMLElement } | null;
}

export class HealthPanel {
  readonly #statuses = ["service-short", "service-status"].map((id) => byId(id, HTMLElement));
  readonly #since = byId("service-since", HTMLElement);
  readonly #feeds = byId("feeds", HTMLTableSectionElement);
  readonly #ledgerHead = byId("ledger-head", HTMLTableRowElement);
  readonly #ledger = byId("ledger", HTMLTableSectionElement);
  #lines: FeedLine[] = [];
  #columns = "";
  #before: Health | null = null;

  show(health: Health): void {
    const feeds = Object.entries(health.exchanges).filter(
      ([, feed]) => feed.status !== "off" || feed.updates.received > 0,
    );
    const columns = JSON.stringify(feeds.map(([name, feed]) => [name, feed.kind]));
    if (columns !== this.#columns) this.#shape(feeds);
    this.#columns = columns;

    this.#status(health.status);
    setText(this.#since, `version ${health.version}, up for ${formatDuration(health.uptime)}`);
    feeds.forEach(([name, feed], index) => this.#feed(index, name, feed, health));
    this.#store("redis", health.redis);
    this.#store("postgres", health.postgres);
    this.#ledgerOf([health.updates, ...feeds.map(([, feed]) => feed.updates)]);
    setText(byId("rejected", HTMLElement), reasons(health.updates.rejected, formatCount) || "none");
    setText(byId("dropped", HTMLElement), reasons(health.updates.dropped, formatCount) || "none");
    this.#announceChanges(health);
    this.#before = health;
  }

  /** Mark the state as unknown. */
  lost(): void {
    this.#status("unknown");
    const pills = this.#feeds.querySelectorAll(".status");
    for (const pill of [...pills, byId("redis-status", HTMLElement), byId("postgres-status", HTMLElement)]) {
      setAttribute(pill, "data-status", "unknown");
      setText(pill, "unknown");
    }
    for (const { venue } of this.#lines) if (venue !== null) setText(venue.activity, "");
    const verdict = byId("verdict", HTMLElement);
    setAttribute(verdict, "data-holds", null);
    setText(verdict, this.#before === null ? "" : `last known state, ${formatDuration(this.#before.uptime)} after its start`);
  }

  #status(status: string): void {
    for (const element of this.#statuses) {
      setAttribute(element, "data-status", status);
      setText(element, status);
    }
  }

  #shape(feeds: readonly [string, FeedHealth][]): void {
    const names = feeds.map(([name]) => name);
    const cells = (count: number) => Array.from({ length: count }, () => make("td"));
    this.#feeds.replaceChildren();
    this.#lines = feeds.map(([name, feed]) => this.#line(name, feed));
    const heads = ["all", ...names].map((name) => make("th", { scope: "col" }, name));
    this.#ledgerHead.replaceChildren(make("td"), ...heads);
    this.#ledger.replaceChildren(
      ...LEDGER.map(({ name, kind }) =>
        make("tr", { class: kind }, make("th", { scope: "row" }, name), ...cells(names.length + 1).map(numbered)),
      ),
    );
  }

  /** Add the row of a feed; a venue has a second one, for what its connection does and lacks. */
  #line(name: string, feed: FeedHealth): FeedLine {
    const heading = make("th", { scope: "row" }, name);
    const status = make("span", { class: "status" });
    const [age, rate, reconnects] = [make("td"), make("td"), make("td")];
    const row = make("tr", {}, heading, make("td", {}, status), age, rate, reconnects);
    this.#feeds.append(row);
    if (feed.symbols === null) return { status, age, rate, reconnects, venue: null };
    setAttribute(row, "class", "venue");
    setAttribute(heading, "rowspan", "2");
    heading.append(" ", make("span", { class: "kind" }, feed.kind));
    const [activity, refusal, gaps] = ["activity", "refusal", "gaps"].map((part) => make("span", { class: part }));
    const venue = { activity, refusal, gaps } as NonNullable<FeedLine["venue"]>;
    const details = make("p", { class: "details" }, venue.activity, " ", venue.refusal, " ", venue.gaps);
    this.#feeds.append(make("tr", { class: "more" }, make("td", { colspan: "4" }, details)));
    return { status, age, rate, reconnects, venue };
  }

  #feed(index: number, name: string, feed: FeedHealth, health: Health): void {
    const line = this.#lines[index];
    if (line === undefined) return;
    setAttribute(line.status, "data-status", feed.status);
    setText(line.status, feed.status);
    setText(line.age, feed.last_update_age === null ? "never" : formatAge(feed.last_update_age * 1_000));
    setText(line.rate, this.#rate(name, feed, health));
    setText(line.reconnects, formatCount(feed.reconnects));
    if (line.venue === null) return;
    setText(line.venue.activity, feed.activity ?? "");
    setText(line.venue.refusal, refusalOf(feed));
    setAttribute(line.venue.refusal, "title", feed.rejected_symbols.join(", ") || null);
    setText(line.venue.gaps, gapsOf(feed));
  }

  /** The rate since the last report, or since the start if there is no earlier report of this boot. */
  #rate(name: string, feed: FeedHealth, health: Health): string {
    const before = this.#before !== null && this.#before.uptime < health.uptime ? this.#before : null;
    const seconds = health.uptime - (before?.uptime ?? 0);
    const received = feed.updates.received - (before?.exchanges[name]?.updates.received ?? 0);
    return seconds > 0 ? formatRate(received / seconds) : "–";
  }

  #store(name: "redis" | "postgres", store: StoreHealth): void {
    const status = byId(`${name}-status`, HTMLElement);
    setAttribute(status, "data-status", store.status);
    setText(status, store.status);
    const why = store.status === "away" && store.error !== null ? `: ${store.error}` : "";
    setText(byId(`${name}-since`, HTMLElement), `since ${formatDateTime(store.since)}${why}`);
  }

  #ledgerOf(columns: readonly Counters[]): void {
    let holds = true;
    columns.forEach((updates, column) => {
      const sums = balance(updates);
      LEDGER.forEach((line, index) => {
        const cell = this.#ledger.rows[index]?.cells[column + 1];
        if (cell === undefined) return;
        const right = line.holds?.(sums);
        if (right === false) holds = false;
        const mark = right === undefined ? "" : right ? " ✓" : " ✗";
        const [number, after] = cell.children;
        if (number) setText(number, formatCount(line.value(updates, sums)));
        if (after) setText(after, mark);
        if (right !== undefined) setAttribute(cell, "data-holds", String(right));
      });
    });
    const verdict = byId("verdict", HTMLElement);
    setAttribute(verdict, "data-holds", String(holds));
    setText(verdict, holds ? "The counters add up for every exchange." : "The counters do NOT add up. Please report this.");
  }

  #announceChanges(health: Health): void {
    const before = this.#before;
    if (before === null) return;
    const changes: string[] = [];
    for (const [name, feed] of Object.entries(health.exchanges)) {
      const was = before.exchanges[name]?.status;
      const modeChanged = was === "off" || feed.status === "off";
      if (was !== undefined && was !== feed.status && !modeChanged) changes.push(`${name} is ${feed.status}`);
      const refused = before.exchanges[name]?.rejected_symbols.length ?? 0;
      if (feed.rejected_symbols.length > refused) changes.push(`${name} ${refusalOf(feed)}`);
    }
    if (before.redis.status !== health.redis.status) changes.push(`Redis is ${health.redis.status}`);
    if (before.postgres.status !== health.postgres.status) changes.push(`PostgreSQL is ${health.postgres.status}`);
    if (before.mode !== health.mode) changes.push(`the mode is ${health.mode} now`);
    if (changes.length > 0) announce(changes.join(", "));
  }
}

/** A cell for a number, with room for a mark that does not move the number. */
function numbered(cell: HTMLTableCellElement): HTMLTableCellElement {
  cell.append(make("span"), make("span", { class: "mark" }));
  return cell;
}

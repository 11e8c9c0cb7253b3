/** The live stream, which is open while the page is visible. */

import type { Price } from "./api";
import { type Connection, type Happening, next } from "./connection";

/** How long, in ms, a page may be hidden before its connection is closed. */
const HIDDEN_FOR = 30_000;

export class Stream {
  #connection: Connection = { state: "connecting", attempt: 0 };
  #source: EventSource | null = null;
  #timer: number | undefined;
  #hiding: number | undefined;

  constructor(
    private readonly path: string,
    private readonly onPrice: (price: Price) => void,
    private readonly onChange: (connection: Connection) => void,
  ) {}

  get connection(): Connection {
    return this.#connection;
  }

  start(): void {
    document.addEventListener("visibilitychange", () => this.#visibility());
    window.addEventListener("online", () => this.happen("retry"));
    window.addEventListener("pagehide", () => this.#source?.close());
    window.addEventListener("pageshow", (event) => event.persisted && this.happen("failed"));
    this.#enter();
    this.onChange(this.#connection);
  }

  /** Apply an event to the connection, and carry out what the new state requires. */
  happen(happening: Happening): void {
    const before = this.#connection;
    this.#connection = next(before, happening, performance.now(), Math.random());
    if (this.#connection === before) return;
    this.#enter();
    this.onChange(this.#connection);
  }

  #enter(): void {
    const connection = this.#connection;
    window.clearTimeout(this.#timer);
    if (connection.state === "live") return;
    this.#source?.close();
    this.#source = null;
    if (connection.state === "connecting") this.#open();
    if (connection.state === "waiting") {
      this.#timer = window.setTimeout(() => this.happen("due"), connection.until - performance.now());
    }
  }

  #open(): void {
    const source = new EventSource(this.path);
    source.addEventListener("open", () => this.happen("opened"));
    source.addEventListener("error", () => this.happen("failed"));
    source.addEventListener("price", (event) => this.onPrice(JSON.parse(event.data) as Price));
    this.#source = source;
  }

  #visibility(): void {
    window.clearTimeout(this.#hiding);
    if (document.visibilityState === "visible") {
      this.happen("shown");
      this.happen("retry");
    } else {
      this.#hiding = window.setTimeout(() => this.happen("hidden"), HIDDEN_FOR);
    }
  }
}

/** Shows whether the page is live, and a way to reconnect if it is not. */

import { announce } from "./announce";
import type { Connection } from "./connection";
import { byId, setAttribute, setText } from "./dom";
import { formatTime } from "./format";

export class Banner {
  readonly #pill = byId("connection", HTMLElement);
  readonly #banner = byId("lost", HTMLElement);
  readonly #text = byId("lost-text", HTMLElement);
  readonly #countdown = byId("lost-countdown", HTMLElement);
  #connection: Connection = { state: "connecting", attempt: 0 };
  /** The time of the last message, Unix ms. */
  #heard: number | null = null;
  #lost = false;

  constructor(onRetry: () => void) {
    byId("retry", HTMLButtonElement).addEventListener("click", onRetry);
  }

  show(connection: Connection, now: number): void {
    const before = this.#connection.state;
    this.#connection = connection;
    if (before === "live") this.#heard = now;
    const { state } = connection;
    if (state === "live") this.#found();
    else if (state === "waiting") this.#lose();
    const words = this.#lost ? "not connected" : { connecting: "connecting", live: "streaming", paused: "paused" };
    setAttribute(this.#pill, "data-status", this.#lost ? "lost" : state);
    setText(this.#pill, typeof words === "string" ? words : words[state as keyof typeof words]);
    setAttribute(document.documentElement, "data-lost", this.#lost ? "" : null);
    this.tick();
  }

  /** Count down to the next attempt. */
  tick(): void {
    if (!this.#lost) return;
    const connection = this.#connection;
    const seconds = connection.state === "waiting" ? Math.ceil((connection.until - performance.now()) / 1_000) : 0;
    setText(this.#countdown, seconds > 0 ? `Next try in ${seconds} s.` : "Trying now …");
  }

  /** Note whether other requests are answered while the stream is away. */
  answered(answered: boolean): void {
    if (!this.#lost) return;
    setText(
      this.#text,
      answered ? "The live stream is away: prices are asked for in between." : `The service does not answer.${this.#since()}`,
    );
  }

  #since(): string {
    return this.#heard === null ? "" : ` Prices are those of ${formatTime(this.#heard)}.`;
  }

  #lose(): void {
    if (this.#lost) return;
    this.#lost = true;
    this.answered(false);
    this.#banner.hidden = false;
    announce(`Connection lost.${this.#since()}`);
  }

  #found(): void {
    if (!this.#lost) return;
    this.#lost = false;
    this.#banner.hidden = true;
    announce("Connected again.");
  }
}

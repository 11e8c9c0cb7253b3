/** The mode, and its switch: with a confirmation, and with the token if the service needs one. */

import { type Mode, Refusal, reasonOf, switchMode } from "./api";
import { byId, setAttribute, setText } from "./dom";

/** The token's key in the session storage, which lasts as long as the tab, and is not on disk or in other tabs. */
const KEY = "marketflow.token";

const WHAT = {
  test: "Every exchange is disconnected, and generated prices take their place, for everybody who uses this service. What was received before stays.",
  live: "The generator stops, and the exchanges are connected again, for everybody who uses this service.",
} as const;

export class ModeSwitch {
  readonly #label = byId("mode", HTMLElement);
  readonly #button = byId("mode-switch", HTMLButtonElement);
  readonly #dialog = byId("mode-dialog", HTMLDialogElement);
  readonly #confirm = byId("mode-confirm", HTMLButtonElement);
  readonly #token = byId("mode-token", HTMLInputElement);
  readonly #tokenField = byId("mode-token-field", HTMLElement);
  readonly #error = byId("mode-error", HTMLElement);
  #mode: Mode | null = null;

  constructor(private readonly onSwitched: () => void) {
    this.#button.addEventListener("click", () => this.#ask());
    byId("mode-cancel", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    byId("mode-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#switch();
    });
  }

  show(mode: Mode): void {
    if (mode === this.#mode) return;
    this.#mode = mode;
    setAttribute(document.documentElement, "data-mode", mode);
    setText(this.#label, mode === "live" ? "live" : "test data");
    setText(this.#button, `Switch to ${other(mode)}`);
    this.#button.disabled = false;
    if (this.#dialog.open) this.#dialog.close();
  }

  #ask(): void {
    if (this.#mode === null) return;
    const target = other(this.#mode);
    setText(byId("mode-title", HTMLElement), `Switch to ${target} mode?`);
    setText(byId("mode-what", HTMLElement), WHAT[target]);
    setText(this.#confirm, `Switch to ${target}`);
    this.#tokenField.hidden = true;
    this.#say("");
    this.#busy(false);
    this.#dialog.showModal();
  }

  async #switch(): Promise<void> {
    if (this.#mode === null) return;
    const target = other(this.#mode);
    const typed = this.#tokenField.hidden ? null : this.#token.value;
    const token = typed ?? sessionStorage.getItem(KEY);
    this.#busy(true);
    this.#say("");
    try {
      await switchMode(target, token);
      if (typed !== null) sessionStorage.setItem(KEY, typed);
      this.#token.value = "";
      this.#dialog.close();
      this.show(target);
      this.onSwitched();
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) this.#askForToken(token !== null);
      else this.#say(`Not switched: ${reasonOf(error)}.`);
    } finally {
      this.#busy(false);
    }
  }

  #askForToken(given: boolean): void {
    sessionStorage.removeItem(KEY);
    this.#say(given ? "The service does not accept this token." : "The service wants its token for this.");
    this.#tokenField.hidden = false;
    this.#token.value = "";
    this.#token.disabled = false;
    this.#token.focus();
  }

  #say(text: string): void {
    setText(this.#error, text);
  }

  #busy(busy: boolean): void {
    this.#confirm.disabled = busy;
    setAttribute(this.#dialog, "aria-busy", busy ? "true" : null);
  }
}

function other(mode: Mode): Mode {
  return mode === "live" ? "test" : "live";
}

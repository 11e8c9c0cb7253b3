/** Announces changes of state to screen readers, never single prices. */

import { byId } from "./dom";

/** Announce a text, after the current announcement. */
export function announce(text: string): void {
  const region = byId("announcements", HTMLElement);
  // Without a change the same text would not be announced a second time.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}

/** Announces changes of state to screen readers, never single prices. */

import { byId } from "./dom";

/** Say something, after what is being said. */
export function announce(text: string): void {
  const region = byId("announcements", HTMLElement);
  // The same text a second time would be no change, and not be said.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}

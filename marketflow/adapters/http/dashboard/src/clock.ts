/** The service's time, so that a wrong clock of this machine does not make ages wrong. */

/** Differences below this, in ms, are ignored: the Date header is in whole seconds, and took time to arrive. */
const TOLERANCE = 2_000;

export class ServerClock {
  #offset = 0;

  /** Adjust the clock by the Date header of an answer. */
  learn(serverTime: number, here = Date.now()): void {
    const offset = serverTime + 500 - here;
    this.#offset = Math.abs(offset) > TOLERANCE ? offset : 0;
  }

  /** Unix ms. */
  now(here = Date.now()): number {
    return here + this.#offset;
  }
}

/** The service's time: ages must not be wrong because this machine's clock is. */

/** The Date header is cut to the second and has been on its way: less than this, in ms, is no difference. */
const TOLERANCE = 2_000;

export class ServerClock {
  #offset = 0;

  /** Learn from an answer's Date header. */
  learn(serverTime: number, here = Date.now()): void {
    const offset = serverTime + 500 - here;
    this.#offset = Math.abs(offset) > TOLERANCE ? offset : 0;
  }

  /** Unix ms. */
  now(here = Date.now()): number {
    return here + this.#offset;
  }
}

/** Numbers and times as text: the same in every locale, with only as many digits as are useful. */

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const VOLUME = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 5 });
const FIXED = new Map<number, Intl.NumberFormat>();

/** Prices below this are written with an exponent. */
const TINY = 1e-8;

/** A number with a fixed number of decimals, and with thousands separators. */
function fixed(value: number, decimals: number): string {
  let format = FIXED.get(decimals);
  if (format === undefined) {
    format = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    FIXED.set(decimals, format);
  }
  return format.format(value);
}

/** The number of decimals for a price of this size: about five digits that change, with few jumps between sizes. */
export function decimalsOf(price: number): number {
  const size = Math.abs(price);
  if (size >= 1_000) return 2;
  if (size >= 1) return 4;
  if (size < TINY) return 12;
  return Math.min(12, 4 - Math.floor(Math.log10(size)));
}

/** A price, with the decimals of its size or with the given number. */
export function formatPrice(price: number, decimals = decimalsOf(price)): string {
  if (price !== 0 && Math.abs(price) < TINY) return price.toExponential(4);
  return fixed(price, decimals);
}

/** A difference of prices: with their decimals, or with as many as are needed to show it. */
export function formatSpread(absolute: number, decimals: number): string {
  const seen = absolute > 0 ? 1 - Math.floor(Math.log10(absolute)) : 0;
  return formatPrice(absolute, Math.min(12, Math.max(decimals, seen)));
}

/** Volumes from this on are written with an exponent. */
const HUGE = 1e12;

/** A volume: to five digits, without zeros at the end, since volumes of one pair differ a lot in size. */
export function formatVolume(volume: number): string {
  if (volume !== 0 && (volume < TINY || volume >= HUGE)) return volume.toExponential(4);
  return (volume < 10_000 ? VOLUME : WHOLE).format(volume);
}

/** A count. */
export function formatCount(count: number): string {
  return WHOLE.format(count);
}

/** A fraction as a percentage: 0.0123 is 1.23 %. */
export function formatShare(share: number): string {
  const percent = share * 100;
  return `${fixed(percent, percent >= 10 ? 1 : percent >= 0.1 ? 2 : 3)} %`;
}

/** Updates a second. */
export function formatRate(rate: number): string {
  return `${rate < 10 && rate > 0 ? fixed(rate, 1) : formatCount(rate)} /s`;
}

/** An age given in ms: tenths of a second at first, then larger units. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1_000;
  return seconds < 9.95 ? `${fixed(seconds, 1)} s` : formatDuration(seconds);
}

/** A duration in seconds, in its two largest units. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return join(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.floor(whole / 60);
  if (minutes < 1_440) return join(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.floor(minutes / 60);
  return join(Math.floor(hours / 24), "d", hours % 24, "h");
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** The time of day of a Unix time in ms, UTC. */
export function formatTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().slice(11, 19);
}

/** Day and time of a Unix time in ms, UTC. */
export function formatDateTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");
}

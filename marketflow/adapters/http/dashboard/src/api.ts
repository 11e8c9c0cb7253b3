/** The requests and answers of the service's HTTP API. */

export type Mode = "live" | "test";
export type FeedStatus = "connected" | "stale" | "reconnecting" | "off";

export interface Price {
  symbol: string;
  exchange: string;
  price: number;
  /** The exchange's own time, Unix ms. */
  timestamp: number;
  /** That of this update, in the base currency; null if it has none. */
  volume: number | null;
}

export interface Candle {
  /** Unix ms; the span is [start, end). */
  start: number;
  end: number;
  open: number;
  high: number;
  low: number;
  close: number;
  average: number;
  updates: number;
  /** In the base currency; null if no update has a volume. */
  volume: number | null;
  /** How many updates have a volume. */
  volume_updates: number;
  /** The price weighted by volume; null without volume. */
  vwap: number | null;
  closed: boolean;
}

export interface CandlePage {
  candles: Candle[];
  next: number | null;
  /** Only present if there may be earlier candles that are not available at the moment. */
  known_from?: number;
}

export interface Counters {
  received: number;
  accepted: number;
  rejected: Record<string, number>;
  cached: number;
  expired: number;
  dropped: Record<string, number>;
  pending: number;
}

export interface StoreHealth {
  status: "up" | "away";
  /** The time since which it has this status, Unix ms. */
  since: number;
  error: string | null;
}

export interface FeedHealth {
  status: FeedStatus;
  /** Seconds; null before the first update. */
  last_update_age: number | null;
  reconnects: number;
  updates: Counters;
  /** "lines", or that of a venue. */
  kind: string;
  /** What the connection to a venue is doing; null for others, and while it is off. */
  activity: string | null;
  /** Our symbols that a venue refuses. */
  rejected_symbols: string[];
  /** Trades of a venue that have never come. */
  gaps: number;
  /** Our symbols with a venue's names for them; null for others. */
  symbols: Record<string, string> | null;
}

export interface Health {
  status: "ok" | "degraded" | "unavailable";
  mode: Mode;
  version: string;
  /** Seconds. */
  uptime: number;
  redis: StoreHealth;
  postgres: StoreHealth;
  exchanges: Record<string, FeedHealth>;
  updates: Counters;
}

export interface Exchange {
  name: string;
  mode: Mode;
  status: FeedStatus;
}

/** An error answer, with the service's message. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

/** Why a request was not answered, for people. */
export function reasonOf(error: unknown): string {
  return error instanceof Refusal ? error.message : "the service does not answer";
}

/** How long an answer may take, in ms. */
const PATIENCE = 10_000;

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const limits = [AbortSignal.timeout(PATIENCE), ...(init.signal ? [init.signal] : [])];
  return fetch(path, { cache: "no-store", ...init, signal: AbortSignal.any(limits) });
}

async function refusal(response: Response): Promise<Refusal> {
  const problem = (await response.json().catch(() => ({}))) as { detail?: string };
  return new Refusal(response.status, problem.detail ?? `the service answered ${response.status}`);
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, signal ? { signal } : {});
  if (!response.ok) throw await refusal(response);
  return (await response.json()) as T;
}

export async function fetchSymbols(): Promise<string[]> {
  return (await get<{ symbols: string[] }>("/symbols")).symbols;
}

export async function fetchExchanges(): Promise<Exchange[]> {
  return (await get<{ exchanges: Exchange[] }>("/exchanges")).exchanges;
}

export async function fetchPrices(): Promise<Price[]> {
  return (await get<{ prices: Price[] }>("/prices/latest")).prices;
}

/** The health report, also if the service is unavailable. `serverTime` is its clock, to the second, in ms. */
export async function fetchHealth(): Promise<{ health: Health; serverTime: number | null }> {
  const response = await ask("/health");
  if (!response.ok && response.status !== 503) throw await refusal(response);
  const serverTime = Date.parse(response.headers.get("Date") ?? "");
  const health = (await response.json()) as Health;
  return { health, serverTime: Number.isNaN(serverTime) ? null : serverTime };
}

export interface CandleQuestion {
  symbol: string;
  /** null: all exchanges of the mode. */
  exchange: string | null;
  interval: string;
  start?: number;
  end?: number;
  limit?: number;
}

export async function fetchCandles(question: CandleQuestion, signal: AbortSignal): Promise<CandlePage> {
  const { symbol, ...rest } = question;
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(rest)) {
    if (value !== null && value !== undefined) parameters.set(name, String(value));
  }
  return get<CandlePage>(`/candles/${encodeURIComponent(symbol)}?${parameters}`, signal);
}

/** Switch the mode. Throws a Refusal with status 401 if a token is missing or wrong. */
export async function switchMode(mode: Mode, token: string | null): Promise<void> {
  const headers: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` };
  const response = await ask(`/mode/${mode}`, { method: "POST", headers });
  if (!response.ok) throw await refusal(response);
}

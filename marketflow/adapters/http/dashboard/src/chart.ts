/** The chart of candles: TradingView's lightweight-charts, in the page's colours. */

import {
  type CandlestickData,
  CandlestickSeries,
  ColorType,
  type HistogramData,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
  type WhitespaceData,
  createChart,
} from "lightweight-charts";

import type { Candle } from "./api";
import { missing } from "./candles";
import { decimalsOf, formatPrice } from "./format";

/** The greatest width of a gap in time, in candles. */
const WIDEST_GAP = 60;
/** If fewer candles than this are left of the visible part, earlier ones are requested. */
const AHEAD = 20;

const MINUTE = 60_000;
const DAY = 86_400_000;

export class Chart {
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #updates: ISeriesApi<"Histogram">;
  #decimals = -1;

  constructor(
    private readonly container: HTMLElement,
    onPoint: (start: number | null) => void,
    onEarlier: () => void,
    onAway: (away: boolean) => void,
  ) {
    this.#chart = createChart(container, {
      autoSize: true,
      // Its logo would add a <style>, which the page's policy forbids; the footer names TradingView instead.
      layout: { attributionLogo: false, fontFamily: getComputedStyle(container).fontFamily, fontSize: 11 },
      localization: { locale: "en-GB", dateFormat: "yyyy-MM-dd" },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.18 } },
      timeScale: { borderVisible: false, rightOffset: 4, barSpacing: 8, minBarSpacing: 1 },
    });
    this.#updates = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "updates",
      priceFormat: { type: "volume" },
      priceLineVisible: false,
      lastValueVisible: false,
    });
    this.#updates.priceScale().applyOptions({ scaleMargins: { top: 0.88, bottom: 0 } });
    this.#candles = this.#chart.addSeries(CandlestickSeries, {});
    this.#chart.subscribeCrosshairMove(({ time }) => onPoint(time === undefined ? null : Number(time) * 1_000));
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < AHEAD) onEarlier();
      onAway(this.#chart.timeScale().scrollPosition() < -1);
    });
    container.addEventListener("keydown", (event) => this.#key(event));
    this.recolour();
  }

  /** Read the colours from the page's style again. */
  recolour(): void {
    const style = getComputedStyle(this.container);
    const colour = (name: string) => style.getPropertyValue(`--${name}`);
    const [up, down, muted, line, panel] = ["up", "down", "muted", "line", "panel"].map(colour) as [
      string,
      string,
      string,
      string,
      string,
    ];
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: panel }, textColor: muted },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: {
        vertLine: { color: muted, labelBackgroundColor: colour("raised-strong") },
        horzLine: { color: muted, labelBackgroundColor: colour("raised-strong") },
      },
    });
    // Rising candles are hollow, so that they differ from falling ones not only in colour.
    this.#candles.applyOptions({
      upColor: panel,
      borderUpColor: up,
      wickUpColor: up,
      downColor: down,
      borderDownColor: down,
      wickDownColor: down,
      priceLineColor: muted,
    });
    this.#updates.applyOptions({ color: colour("bars") });
  }

  /** Show these candles without moving the view. */
  show(candles: readonly Candle[], interval: number): void {
    this.#digits(candles.at(-1));
    this.#chart.timeScale().applyOptions({ timeVisible: interval < DAY, secondsVisible: interval < MINUTE });
    const drawn: (CandlestickData | WhitespaceData)[] = [];
    const counted: (HistogramData | WhitespaceData)[] = [];
    candles.forEach((candle, index) => {
      const before = candles[index - 1];
      if (before !== undefined) {
        for (const start of missing(before, candle, interval, WIDEST_GAP)) drawn.push({ time: seconds(start) });
      }
      drawn.push(bar(candle));
      counted.push(count(candle));
    });
    this.#candles.setData(drawn);
    this.#updates.setData(counted);
  }

  /** Update the newest candle, or add one that has begun. */
  update(candle: Candle): void {
    this.#digits(candle);
    this.#candles.update(bar(candle));
    this.#updates.update(count(candle));
  }

  /** Move the view to the newest candles. */
  toNewest(): void {
    this.#chart.timeScale().resetTimeScale();
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
  }

  #digits(candle: Candle | undefined): void {
    if (candle === undefined) return;
    const decimals = decimalsOf(candle.close);
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    const formatter = (price: number) => formatPrice(price, decimals);
    this.#candles.applyOptions({ priceFormat: { type: "custom", formatter, minMove: 10 ** -decimals } });
  }

  #key(event: KeyboardEvent): void {
    const scale = this.#chart.timeScale();
    const step = event.shiftKey ? 50 : 5;
    const spacing = scale.options().barSpacing;
    if (event.key === "ArrowLeft") scale.scrollToPosition(scale.scrollPosition() - step, false);
    else if (event.key === "ArrowRight") scale.scrollToPosition(scale.scrollPosition() + step, false);
    else if (event.key === "+") scale.applyOptions({ barSpacing: Math.min(60, spacing * 1.25) });
    else if (event.key === "-") scale.applyOptions({ barSpacing: Math.max(1, spacing / 1.25) });
    else if (event.key === "End") this.toNewest();
    else return;
    event.preventDefault();
  }
}

function seconds(milliseconds: number): UTCTimestamp {
  return (milliseconds / 1_000) as UTCTimestamp;
}

function bar(candle: Candle): CandlestickData {
  const { open, high, low, close } = candle;
  return { time: seconds(candle.start), open, high, low, close };
}

function count(candle: Candle): HistogramData {
  return { time: seconds(candle.start), value: candle.updates };
}

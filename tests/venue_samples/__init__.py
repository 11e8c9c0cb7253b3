"""Frames of each venue with what they mean, written for the conformance suite."""

from venue_samples import binance, bitfinex, bitstamp, bybit, coinbase, gateio, kraken, kucoin, okx

SAMPLES = {
    "binance": binance.SAMPLE,
    "bitfinex": bitfinex.SAMPLE,
    "bitstamp": bitstamp.SAMPLE,
    "bybit": bybit.SAMPLE,
    "coinbase": coinbase.SAMPLE,
    "gateio": gateio.SAMPLE,
    "kraken": kraken.SAMPLE,
    "kucoin": kucoin.SAMPLE,
    "okx": okx.SAMPLE,
}

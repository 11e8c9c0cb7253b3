"""Frames of each venue with what they mean, written for the conformance suite."""

from venue_samples import binance, bybit, coinbase, kraken, okx

SAMPLES = {
    "binance": binance.SAMPLE,
    "bybit": bybit.SAMPLE,
    "coinbase": coinbase.SAMPLE,
    "kraken": kraken.SAMPLE,
    "okx": okx.SAMPLE,
}

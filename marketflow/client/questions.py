"""One question, one answer."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import Final

import trio

from marketflow.client.address import Address
from marketflow.client.answers import Problem, read
from marketflow.client.errors import NotUnderstood, Refused, Unreachable
from marketflow.client.requests import Request
from marketflow.client.transport import Incoming, answering
from marketflow.patience import within

BODY_LIMIT: Final = 15.0
"""Seconds for the body of an answer."""
LARGEST_BODY: Final = 16 * 1024 * 1024
"""Bytes: a hundred times the largest page of candles."""

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


async def ask(address: Address, request: Request) -> bytes:
    """Send a request and return the body of the answer, which is JSON.

    Raises:
        Unreachable, NotUnderstood: there is no usable answer.
        Refused: the answer is an error.
    """
    async with answering(address, request) as incoming:
        return await body_of(incoming, address, request)


async def body_of(incoming: Incoming, address: Address, request: Request) -> bytes:
    """The whole body of a good answer.

    Raises:
        As `ask`.
    """
    body = bytearray()

    async def read_to_the_end() -> None:
        while chunk := await incoming.read():
            body.extend(chunk)
            if len(body) > LARGEST_BODY:
                raise NotUnderstood(str(address), "an answer without an end")

    try:
        await within(BODY_LIMIT, read_to_the_end)
    except trio.TooSlowError:
        raise Unreachable(str(address), f"no end of the answer in {BODY_LIMIT:.0f} s") from None
    kind = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == PROBLEM:
        raise Refused(
            incoming.status, _worded(incoming, read(str(address), body, Problem), address), bytes(body)
        )
    if incoming.status not in request.good or (incoming.status != HTTPStatus.OK and kind != JSON):
        raise Refused(incoming.status, _worded(incoming, Problem(), address))
    return bytes(body)


def _worded(incoming: Incoming, problem: Problem, address: Address) -> str:
    """The error message, with the allowed values and advice."""
    words = problem.detail or problem.title or f"{address} answered {_named(incoming.status)}"
    if problem.allowed:
        words += f"; allowed: {', '.join(problem.allowed)}"
    if incoming.status == HTTPStatus.UNAUTHORIZED:
        words += "; give the token with --token or MARKETFLOW_TOKEN"
    if "location" in incoming.headers:
        words += f"; it is at {incoming.headers['location']} now"
    if "retry-after" in incoming.headers:
        words += f"; try again in {incoming.headers['retry-after']} s"
    return words


def _named(status: int) -> str:
    with suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)

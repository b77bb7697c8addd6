"""What a long operation reports, as a stream of messages that clients follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """The last thing an operation says: its result."""

    result: T


async def follow(work: Callable[[Callable[[str], None]], Awaitable[T]]) -> AsyncIterator[str | Done[T]]:
    """Start ``work(progress)``; yield what it reports and then ``Done``, or raise its error.

    ``work`` may report from any thread. When nobody follows any more it is cancelled; the
    engine finishes a change that it has begun all the same.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | Done[T] | Exception] = asyncio.Queue()

    def tell(item: str | Done[T] | Exception) -> None:
        # The result goes the same way as the reports, or it could overtake them.
        loop.call_soon_threadsafe(queue.put_nowait, item)

    async def perform() -> None:
        try:
            tell(Done(await work(tell)))
        except Exception as error:
            tell(error)

    task = asyncio.create_task(perform())
    try:
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
            if isinstance(item, Done):
                return
    finally:
        task.cancel()

"""Group commit: batches calls that arrive while a transaction is under way.

And `shielded`: a call is finished even if its caller is cancelled.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar

from s2v_tasks.adapters.database.patience import CLOSE_S, WRITE_S
from s2v_tasks.errors import LedgerUnavailable

AT_MOST: Final = 100
"""Calls in one transaction."""
CONFLICTS: Final = 5
"""How often a call is tried that loses against another transaction."""
FINISH_S: Final = WRITE_S + CLOSE_S
"""How long a call is waited for whose caller was cancelled; whatever ends by itself has ended then."""

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


def shielded(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Finish the call even if its caller is cancelled meanwhile, within a bounded time.

    A statement cut off in the middle leaves its connection, and with it the database's one write lock, to the
    garbage collector: every other user of the ledger would wait. A call that lost against another transaction
    is repeated, for nothing of it was done.
    """

    async def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(1, CONFLICTS):
            try:
                return await method(*args, **kwargs)
            except LedgerUnavailable as error:
                if not error.lost_conflict:
                    raise
                await asyncio.sleep(random.random() * 0.05 * number)  # noqa: S311  (no secret)
        return await method(*args, **kwargs)

    @functools.wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(repeated(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await finish(task, FINISH_S)
            raise

    return run


async def finish(task: "asyncio.Task[Any]", within_s: float) -> None:
    """Wait for a task whose caller is gone, whatever cancels this too; then cancel it."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while not task.done() and loop.time() < until_s:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=until_s - loop.time())
    if not task.cancel() and not task.cancelled():
        task.exception()  # retrieved: its caller is gone


class Batcher(Generic[A, B]):
    """Runs calls that arrive while one is under way together in the next: one transaction for many.

    ``do`` takes the arguments of up to ``AT_MOST`` calls and returns a result for each.
    """

    def __init__(self, do: Callable[[list[A]], Awaitable[Sequence[B]]]) -> None:
        self._do = do
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, argument: A) -> B:
        """Wait for a turn; the call that has it takes the others along."""
        result: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((argument, result))
        async with self._one_at_a_time:
            if not result.done():  # the lock is first come, first served: ours is the first that waits
                await self._do_first()
        return result.result()

    async def _do_first(self) -> None:
        batch = self._waiting[:AT_MOST]
        del self._waiting[: len(batch)]
        try:
            results = await self._do([argument for argument, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
        except Exception as error:  # noqa: BLE001  (each caller gets it)
            for _, future in batch:
                future.set_exception(error)
        finally:  # a future that is done already does not change
            for _, future in batch:
                future.cancel()

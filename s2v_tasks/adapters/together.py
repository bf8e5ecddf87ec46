"""How transactions are called: whole, even if the caller is cancelled, and many calls in one."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final, Generic, ParamSpec, TypeVar

from s2v_tasks.adapters.lease import Lease

AT_MOST: Final = 100
"""Calls in one transaction."""

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


def whole(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Do all of it, even if the caller is cancelled meanwhile.

    A statement cut off in the middle leaves its connection, and with it the database's one write lock, to the
    garbage collector: everybody else on the ledger would wait.
    """

    @functools.wraps(method)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(method(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: whoever asked is gone
            raise

    return run


class Together(Generic[A, B]):
    """Calls that come while one is under way go together in the next: one transaction for many.

    ``do`` takes the arguments of up to ``AT_MOST`` calls of the same ``lease`` and gives a result for each.
    """

    def __init__(self, do: Callable[[Lease, list[A]], Awaitable[Sequence[B]]]) -> None:
        self._do = do
        self._waiting: list[tuple[Lease, A, asyncio.Future[B]]] = []
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, lease: Lease, argument: A) -> B:
        """Wait for one's turn; whoever has it takes the others along."""
        result: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((lease, argument, result))
        async with self._one_at_a_time:
            if not result.done():  # the lock is first come, first served: ours is the first that waits
                await self._do_first(lease)
        return result.result()

    async def _do_first(self, lease: Lease) -> None:
        same = list(takewhile(lambda call: call[0] == lease, self._waiting[:AT_MOST]))
        del self._waiting[: len(same)]
        try:
            results = await self._do(lease, [argument for _, argument, _ in same])
            for (_, _, result), come in zip(same, results, strict=True):
                result.set_result(come)
        except Exception as error:  # noqa: BLE001  (each caller gets it)
            for _, _, result in same:
                result.set_exception(error)
        finally:  # of what is done already, nothing changes
            for _, _, result in same:
                result.cancel()

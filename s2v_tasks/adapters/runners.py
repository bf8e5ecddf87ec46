"""Prefect's task runners for the free screen: its shards leave this process, and come back as frames.

What is sent is a task with its parameters, so a worker needs this package, a Prefect server that it can
reach, and nothing else: no ledger, no key, no run.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

import polars as pl
from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from s2v_tasks.errors import RunnerLost, S2VError
from s2v_tasks.settings import Runner

_END_S: Final = 30.0
"""A runner that has not ended by then is left to end by itself."""


class Elsewhere:
    """A task that works on frames in a task runner; an async context manager.

    The runner starts with the first frame, ends with the block, and lets go of what is still under way: a
    look costs nothing.
    """

    def __init__(self, name: Runner, task: Task[..., Any], **parameters: object) -> None:
        self._name, self._task, self._parameters = name, task, parameters
        self._started: asyncio.Task[TaskRunner[Any]] | None = None
        self._let_go: Callable[[], None] = lambda: None

    async def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Have a frame worked on.

        Raises:
            RunnerLost: The runner can't be started or reached, or lost the work.
            S2VError: What the task raised.
        """
        try:
            if self._started is None:
                self._started = asyncio.create_task(asyncio.to_thread(self._start))
            runner = await asyncio.shield(self._started)
            parameters = {"pictures": frame, **self._parameters}
            future = await asyncio.to_thread(runner.submit, self._task, parameters)
            await _done(future)
            result: pl.DataFrame = await asyncio.to_thread(future.result)
        except S2VError:
            raise
        except Exception as error:  # whatever Dask, Ray and Prefect raise when something is gone
            raise RunnerLost(
                f"the screen's runner {self._name!r} failed ({type(error).__name__}: {_line(error)});"
                " mend it, or name another, and run the same command again"
            ) from error
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is None:
            return
        with suppress(Exception):  # it never started: said where a frame was waiting for it
            runner = await self._started
            self._let_go()
            # In a thread that may be left behind: a cluster must not keep a run that has ended.
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()

            def end() -> None:
                with suppress(Exception):
                    runner.__exit__(None, None, None)
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(ended.set)

            threading.Thread(target=end, daemon=True, name=f"end {self._name}").start()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _END_S)

    def _start(self) -> TaskRunner[Any]:
        """In a thread, where it does not keep the loop waiting, and where Ray leaves SIGTERM alone."""
        if self._name == "dask":
            return _dask()
        if self._name == "ray":
            return _ray()
        ours, theirs = multiprocessing.Pipe(duplex=False)
        self._let_go = theirs.close
        return ProcessPoolTaskRunner(initializer=_live_with, initargs=(ours,)).__enter__()


def _dask() -> TaskRunner[Any]:
    """On the cluster of DASK_SCHEDULER_ADDRESS, else on processes of this machine."""
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    address = dask.config.get("scheduler-address", None)
    own = None if address else {"dashboard_address": None}
    runner: Any = DaskTaskRunner(address=address, cluster_kwargs=own)
    started: TaskRunner[Any] = runner.__enter__()
    _ = runner.client  # made when first asked for: two shards at once would make two
    return started


def _ray() -> TaskRunner[Any]:
    """On the cluster of RAY_ADDRESS, else on processes of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    runner: TaskRunner[Any] = RayTaskRunner(init_kwargs=own).__enter__()
    return runner


async def _done(future: PrefectFuture[Any]) -> None:
    """Wait for a future without a thread: whoever waits can be told to stop."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(event.set)

    future.add_done_callback(tell)
    await event.wait()


def _live_with(parent: Connection) -> None:
    """End this process as soon as its parent closes a pipe, or dies; a Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError, OSError):
            parent.recv_bytes()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

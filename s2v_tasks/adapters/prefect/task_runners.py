"""Screening on Prefect's task runners: processes, Dask or Ray.

A worker gets a task and its arguments. It needs this package and a reachable Prefect server, but no ledger,
no key and no run.
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
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from s2v_tasks.adapters.http.local_screener import LocalScreener
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.errors import S2VError, TaskRunnerLost
from s2v_tasks.settings import Runner

_END_S: Final = 30.0
"""After this time the run stops waiting for a task runner to end."""


@task(name="screen-on-worker", cache_policy=NO_CACHE, persist_result=False, retries=0)
async def screen_on_worker(images: pl.DataFrame, screening: ScreenOptions) -> pl.DataFrame:
    """Screen a shard where a task runner puts it: see `s2v_tasks.runtime.screener.Screener`."""
    async with LocalScreener(screening) as screener:
        return await screener.screen(images)


class TaskRunnerScreener:
    """Screens shards on a task runner; use it as an async context manager.

    The task runner starts with the first shard and ends with the block. The block does not wait for shards in
    flight: screening costs nothing.
    """

    def __init__(self, runner: Runner, screening: ScreenOptions) -> None:
        self._name = runner
        self._screening = screening
        self._started: asyncio.Task[TaskRunner[Any]] | None = None
        self._end_workers: Callable[[], None] = lambda: None

    async def screen(self, images: pl.DataFrame) -> pl.DataFrame:
        """Screen images: see `s2v_tasks.runtime.screener.Screener`.

        Raises:
            TaskRunnerLost: The task runner can't be started or reached, or lost the shard.
            S2VError: What the task raised.
        """
        try:
            if self._started is None:
                self._started = asyncio.create_task(asyncio.to_thread(self._start))
            runner = await asyncio.shield(self._started)
            arguments = {"images": images, "screening": self._screening}
            future = await asyncio.to_thread(runner.submit, screen_on_worker, arguments)
            await _done(future)
            result: pl.DataFrame = await asyncio.to_thread(future.result)
        except S2VError:
            raise
        except Exception as error:  # Dask, Ray and Prefect raise many classes for a lost worker
            raise TaskRunnerLost(
                f"the task runner {self._name!r} failed ({type(error).__name__}: {_line(error)});"
                " fix it, or name another, and run the same command again"
            ) from error
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is None:
            return
        with suppress(Exception):  # if it never started, ``screen`` raised the error
            runner = await self._started
            self._end_workers()
            # In a daemon thread: a cluster that hangs must not delay the end of the run.
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()

            def end() -> None:
                with suppress(Exception):
                    runner.__exit__(None, None, None)
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(ended.set)

            threading.Thread(target=end, daemon=True, name=f"end {self._name}").start()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _END_S)

    def _start(self) -> TaskRunner[Any]:
        """Start the task runner; in a thread, so that it does not block the loop or handle SIGTERM."""
        if self._name == "dask":
            return _dask()
        if self._name == "ray":
            return _ray()
        receiver, sender = multiprocessing.Pipe(duplex=False)
        self._end_workers = sender.close
        return ProcessPoolTaskRunner(initializer=_exit_with_parent, initargs=(receiver,)).__enter__()


def _dask() -> TaskRunner[Any]:
    """Dask on the cluster of DASK_SCHEDULER_ADDRESS, else on processes of this machine."""
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    address = dask.config.get("scheduler-address", None)
    own = None if address else {"dashboard_address": None}
    runner: Any = DaskTaskRunner(address=address, cluster_kwargs=own)
    started: TaskRunner[Any] = runner.__enter__()
    _ = runner.client  # created at the first access: two concurrent shards would create two
    return started


def _ray() -> TaskRunner[Any]:
    """Ray on the cluster of RAY_ADDRESS, else on processes of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    runner: TaskRunner[Any] = RayTaskRunner(init_kwargs=own).__enter__()
    return runner


async def _done(future: PrefectFuture[Any]) -> None:
    """Wait for a future without a thread, so that the wait can be cancelled."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def set_event(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(event.set)

    future.add_done_callback(set_event)
    await event.wait()


def _exit_with_parent(parent: Connection) -> None:
    """Exit this process when its parent closes the pipe, or dies; the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError, OSError):
            parent.recv_bytes()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

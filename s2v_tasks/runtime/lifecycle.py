"""Opens a run, new or left behind (manifest, snapshot, lease, heartbeat, signal handlers), and closes it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import polars as pl

from s2v_tasks.adapters import signals
from s2v_tasks.adapters.clock import Clock, SystemClock
from s2v_tasks.adapters.database.connection import shown_url
from s2v_tasks.adapters.database.lease import HEARTBEAT_S
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.run_ledger import RunLedger
from s2v_tasks.adapters.http.detect_client import DetectClient
from s2v_tasks.adapters.http.local_screener import LocalScreener
from s2v_tasks.adapters.storage import file_io, pointer, sources
from s2v_tasks.adapters.storage.run_folder import (
    UNFINISHED,
    Manifest,
    RunFolder,
    clean_up_on_usage_error,
    previous_manifest,
    versions,
)
from s2v_tasks.adapters.storage.run_numbers import take_number
from s2v_tasks.domain import verdict_table
from s2v_tasks.domain.gate_rules import segment_of
from s2v_tasks.domain.ledger import State, images_bought
from s2v_tasks.domain.retry_policy import STOP_S
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.systemic_refusal import Refusals
from s2v_tasks.errors import (
    Interrupted,
    LeaseLost,
    LedgerUnavailable,
    RunStopped,
    S2VError,
    StorageUnavailable,
)
from s2v_tasks.models import FORMAT, WAN22_S2V_DETECT, Screened
from s2v_tasks.runtime.canonical import CanonicalResolver
from s2v_tasks.runtime.engine import Client, Engine
from s2v_tasks.runtime.image_queue import ImageQueue
from s2v_tasks.runtime.ledger_lookup import LedgerLookup, known_keys_from_thread
from s2v_tasks.runtime.partitions import PartitionStore
from s2v_tasks.runtime.plan import Plan, snapshot
from s2v_tasks.runtime.run_context import RateLimit, RunContext
from s2v_tasks.runtime.run_state import RunState
from s2v_tasks.runtime.screener import CachedScreener, Screener


@asynccontextmanager
async def open_run(
    planned: Plan,
    run_id: str,
    rate_limit: RateLimit,
    clock: Clock | None = None,
    screened: Iterable[Screened] = (),
    screener: Screener | None = None,
    rows_file: Path | None = None,
    client: Client | None = None,
) -> AsyncIterator[RunContext]:
    """Open a run, new or left behind; close it with the block.

    Args:
        planned: The run's parameters, checked.
        run_id: Names the run's folder.
        rate_limit: Read before each call.
        clock: None for the machine's.
        screened: Results that need no second fetch.
        screener: None for one in this event loop.
        rows_file: The candidates as `s2v_tasks.runtime.plan.snapshot` has read them; a new run takes the
            file over. None: they are read now.
        client: None for one that calls the detect API.

    Raises:
        UsageError: The input can't be used, or the run is finished, different or held by another process.
    """
    clock, state = clock or SystemClock(), RunState()
    options = ScreenOptions.of(planned.parameters.screening, planned.parameters.advanced)
    async with AsyncExitStack() as stack:
        folder, manifest, database, ledger = await _claim(planned, run_id, rows_file, clock, stack)
        if client is None:
            client = await stack.enter_async_context(DetectClient(planned.credentials, WAN22_S2V_DETECT))
        if screener is None:
            screener = await stack.enter_async_context(LocalScreener(options))
        engine = await _engine(ledger, client, clock, rate_limit, manifest.suspects)
        await asyncio.to_thread(folder.write, manifest)
        await stack.enter_async_context(_alive(database, ledger, engine, state))
        if isinstance(client, DetectClient):
            await client.warm()
        async with _stopped_on_error(folder, manifest, engine, state):
            partitions = PartitionStore(folder.spill_dir(manifest.started_at))
            await _build(partitions, folder, planned, database, engine)
            lookup = LedgerLookup(ledger, engine, partitions)
            shard_size = planned.parameters.advanced.shard_size
            results = verdict_table.screened_frame(screened)
            seed = planned.parameters.sample_seed
            yield RunContext(
                parameters=planned.parameters,
                folder=folder,
                manifest=manifest,
                ledger=ledger,
                engine=engine,
                screener=CachedScreener(
                    screener, results, options, WAN22_S2V_DETECT, database.headers, clock
                ),
                partitions=partitions,
                queue=ImageQueue(partitions, lookup, state, shard_size, manifest.suspects, seed),
                canonical=CanonicalResolver(
                    ledger,
                    database.canonical_images,
                    lookup,
                    partitions,
                    state,
                    engine.stats,
                    options.compares_bytes,
                ),
                rate_limit=rate_limit,
                state=state,
            )


def previous_partitions(planned: Plan, run_id: str) -> PartitionStore | None:
    """The partitions of an earlier process of the run, if there was one.

    Raises:
        UsageError: That run can't be continued; RunFinished if it has ended.
    """
    folder = RunFolder(planned.out, run_id)
    manifest = previous_manifest(folder, planned.identity)
    return None if manifest is None else PartitionStore(folder.spill_dir(manifest.started_at))


# -- opening -------------------------------------------------------------------------------------------


async def _claim(
    planned: Plan, run_id: str, rows_file: Path | None, clock: Clock, stack: AsyncExitStack
) -> tuple[RunFolder, Manifest, Ledger, RunLedger]:
    """Create or continue the run's folder, keep its input, and take its lease; bad input leaves nothing."""
    folder = RunFolder(planned.out, run_id)
    with clean_up_on_usage_error(folder):
        manifest = _manifest(planned, folder, clock)
        await asyncio.to_thread(pointer.check_movable, folder.out)
        rows = await asyncio.to_thread(_keep_rows, planned, folder, rows_file)
        database = await stack.enter_async_context(Ledger(planned.ledger_url, clock))
    # Outside of the block: if another process holds the run, its files stay.
    spending = planned.parameters.spending
    cap = images_bought(planned.parameters.budget_usd, WAN22_S2V_DETECT.price_micro_usd)
    budget = f"name:{spending.budget_name}" if spending.budget_name else f"run:{run_id}"
    ledger = await database.open_run(run_id, planned.scope, budget, cap, spending.on_lost_response)
    number = manifest.number or await asyncio.to_thread(take_number, folder.out, run_id)
    return folder, manifest.model_copy(update={"rows": rows, "number": number}), database, ledger


def _manifest(planned: Plan, folder: RunFolder, clock: Clock) -> Manifest:
    """The manifest of a new run, or of the one that is continued."""
    new = Manifest(
        format=FORMAT,
        run_id=folder.run_id,
        status="running",
        started_at=clock.utcnow(),
        service=planned.service,
        ledger=shown_url(planned.ledger_url),
        identity=planned.identity,
        parameters=planned.parameters,
        versions=versions(),
    )
    previous = previous_manifest(folder, planned.identity)
    if previous is None:
        return new
    kept = {name: getattr(previous, name) for name in ("number", "started_at", "suspects")}
    return new.model_copy(update=kept)


def _keep_rows(planned: Plan, folder: RunFolder, rows_file: Path | None) -> int:
    """Store the input as it is now, and count its rows: what is paid for can't change meanwhile."""
    if folder.rows.exists():
        with file_io.wrap_storage_errors(folder.rows):
            return _count(folder)
    if rows_file is None:
        return snapshot(planned, folder.rows)
    with sources.wrap_read_errors(planned.parameters.candidates):
        file_io.move_whole(rows_file, folder.rows)
        return _count(folder)


def _count(folder: RunFolder) -> int:
    count: int = file_io.parquet(folder.rows).select(pl.len()).collect().item()
    return count


async def _engine(
    ledger: RunLedger, client: Client, clock: Clock, rate_limit: RateLimit, suspects: Mapping[str, int]
) -> Engine:
    succeeded = (await ledger.charges())[State.BILLED] > 0
    refusals = Refusals(succeeded=succeeded, stop_counts=suspects)
    return Engine(ledger, client, clock, lambda: rate_limit.rate_per_s, refusals=refusals)


async def _build(
    partitions: PartitionStore, folder: RunFolder, planned: Plan, database: Ledger, engine: Engine
) -> None:
    """Split the rows into partitions, while the lease is kept and signals are handled.

    Raises:
        RunStopped: A signal came, or the lease was lost.
    """
    known = known_keys_from_thread(database, planned.scope)
    source, seed = planned.parameters.source, planned.parameters.sample_seed
    segment = None if seed is None or source.segment_column is None else segment_of(source.segment_column)

    def build() -> None:
        with file_io.wrap_storage_errors(folder.rows):
            partitions.build(
                file_io.parquet(folder.rows),
                source.url_column,
                should_continue=lambda: engine.stopped is None,
                known=known,
                segment=segment,
            )

    await asyncio.to_thread(build)
    if engine.stopped:
        raise engine.stopped


# -- open, and closing ---------------------------------------------------------------------------------


@asynccontextmanager
async def _alive(database: Ledger, ledger: RunLedger, engine: Engine, state: RunState) -> AsyncIterator[None]:
    """Keep the lease, and stop the engine on a signal; at the end give the lease back.

    The heartbeat goes on until the last call has settled. After a signal nothing is waited for long.
    """

    def stop(signal_name: str) -> None:
        engine.stop(Interrupted.by(signal_name))
        database.end_waits_within(STOP_S)

    heartbeat = asyncio.create_task(_heartbeat(ledger, engine))
    try:
        with signals.on_stop_signal(stop):
            yield
    finally:
        try:
            await _close(ledger, engine, state)
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)


async def _heartbeat(ledger: RunLedger, engine: Engine) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        signals.install()
        try:
            await ledger.heartbeat()
        except LedgerUnavailable:
            continue  # busy; if it stays unavailable, the next write says so
        except RunStopped as error:
            engine.stop(error)
            return
        except Exception as error:
            # Without a heartbeat others would take this run for dead and pay for its images again.
            reason = f"the run's lease can't be kept ({type(error).__name__}: {error})"
            engine.stop(LeaseLost(f"{reason}; nothing more is sent: run the same command again"))
            raise


async def _close(ledger: RunLedger, engine: Engine, state: RunState) -> None:
    """Let the calls in flight settle, then give the lease back; a call still in flight counts as unknown."""
    await engine.finish()
    with contextlib.suppress(LedgerUnavailable):  # then the lease expires
        await ledger.close("stopped" if state.status == "running" else state.status)


@asynccontextmanager
async def _stopped_on_error(
    folder: RunFolder, manifest: Manifest, engine: Engine, state: RunState
) -> AsyncIterator[None]:
    """Write into the manifest why a run stopped, unless it ended or the folder is another process's now."""
    try:
        yield
    except S2VError as error:
        if not isinstance(error, LeaseLost) and state.status in UNFINISHED:
            suspects = dict(engine.refusals.stop_counts)
            update = {"status": "stopped", "message": str(error), "suspects": suspects}
            with contextlib.suppress(StorageUnavailable):  # the first error says more
                await asyncio.to_thread(folder.write, manifest.model_copy(update=update))
        raise

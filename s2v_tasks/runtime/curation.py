"""Opens a curation: estimated, approved, ready for its stages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from s2v_tasks.adapters import gx, signals
from s2v_tasks.adapters.http_environment import proxy_variable
from s2v_tasks.adapters.prefect.artifacts import progress_artifact, show_estimate
from s2v_tasks.adapters.prefect.rate_limit_ui import RateLimitReader
from s2v_tasks.adapters.prefect.task_runners import TaskRunnerScreener
from s2v_tasks.adapters.storage import sources
from s2v_tasks.adapters.storage.local_files import temporary_dir
from s2v_tasks.blocks import stored_credentials, stored_ledger
from s2v_tasks.domain import gate_rules
from s2v_tasks.domain.dead_links import NO_RESPONSE
from s2v_tasks.domain.estimate import Estimate, headline, key_warning
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.ssrf import PRIVATE_ALLOWED
from s2v_tasks.errors import InputError, Interrupted, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT, Screened
from s2v_tasks.runtime.approval import Prompt, approved
from s2v_tasks.runtime.estimation import estimate_inputs
from s2v_tasks.runtime.final_steps import report_started
from s2v_tasks.runtime.lifecycle import open_run, previous_partitions
from s2v_tasks.runtime.plan import OWN_LEDGER, Plan, plan, read_rows
from s2v_tasks.runtime.progress import progress
from s2v_tasks.runtime.run_context import RunContext
from s2v_tasks.runtime.screener import Screener
from s2v_tasks.settings import Advanced, CurateParameters
from s2v_tasks.settings.fields import limits
from s2v_tasks.settings.moved import deprecation


@asynccontextmanager
async def open_approved_run(
    parameters: CurateParameters, run_id: str | None = None, prompt: Prompt | None = None
) -> AsyncIterator[RunContext]:
    """Plan, estimate, get approval and open a run: see `s2v_tasks.tasks.open_curation`.

    ``prompt`` asks for approval; None: the Prefect UI does.
    """
    with stopped_by_signal() as opened:
        if moved := parameters.moved_parameters:
            get_run_logger().warning(deprecation(moved))
        if parameters.screening.enabled and parameters.screening.allow_private_hosts:
            get_run_logger().warning(PRIVATE_ALLOWED)
        credentials = await stored_credentials(parameters.spending.credentials)
        planned = plan(parameters, credentials, await stored_ledger(parameters.spending.ledger_block))
        if planned.has_own_ledger:
            get_run_logger().info(OWN_LEDGER)
        run_id = run_id or run_id_of(parameters.advanced)
        previous_partitions(planned, run_id)  # a finished run is noticed before anything is read
        limited = limits(planned.parameters.thresholds, planned.parameters.advanced)
        await asyncio.to_thread(gx.check_usable, gate_rules.parameters(limited, rows=0))
        with temporary_dir() as temporary:
            rows_file = temporary / "rows.parquet"
            await read_rows(planned, rows_file)
            async with _opened(planned, run_id, rows_file, prompt) as run:
                opened()
                yield run


@contextmanager
def stopped_by_signal() -> Iterator[Callable[[], None]]:
    """Let a signal end the opening of a run; what this gives is called once the run itself hears signals.

    Otherwise a second curation of the process, not yet open when the signal came, would go on and pay. An
    open run ends in order; if something cancels it meanwhile (the client of a silent server), the signal is
    why.

    Raises:
        Interrupted: A signal came, and the block was cancelled.
    """
    task, is_opening, heard = asyncio.current_task(), True, ""

    def stop(signal_name: str) -> None:
        nonlocal heard
        heard = heard or signal_name
        if is_opening and task is not None:
            task.cancel()

    def opened() -> None:
        nonlocal is_opening
        is_opening = False

    with signals.on_stop_signal(stop):
        try:
            yield opened
        except asyncio.CancelledError:
            if task is None or not heard:
                raise
            while task.cancelling():
                task.uncancel()
            raise Interrupted.by(heard) from None


def run_id_of(advanced: Advanced) -> str:
    """The id of a run: the one it was given, else its flow run's, so that a retry is the same run."""
    return advanced.run_id or str(flow_run.id)


@asynccontextmanager
async def _opened(
    planned: Plan, run_id: str, rows_file: Path, prompt: Prompt | None
) -> AsyncIterator[RunContext]:
    """Estimate, get approval, open: the candidates are read once, into ``rows_file``."""
    async with RateLimitReader(WAN22_S2V_DETECT) as rate_limit:
        inputs = await estimate_inputs(
            planned, rate_limit.rate_per_s, previous_partitions(planned, run_id), rows_file
        )
        check_reached(inputs.screened, proxy_variable())
        await _show(planned, inputs.estimate)
        approved_plan = await _approved(planned, inputs.estimate, prompt)
        screened = [*inputs.screened, *inputs.reused]
        async with (
            _task_runner_screener(planned.parameters) as screener,
            open_run(
                approved_plan, run_id, rate_limit, screened=screened, screener=screener, rows_file=rows_file
            ) as run,
            progress_artifact(lambda: progress(run)),
        ):
            report_started(run)
            await run.screener.put(inputs.screened, inputs.screened_at)
            yield run


def check_reached(screened: Sequence[Screened], proxy: str | None) -> None:
    """Refuse a run behind a proxy that can reach no image: all would count as unreachable.

    Args:
        screened: The sample that was fetched for the estimate.
        proxy: The variable that names a proxy; None: there is none.

    Raises:
        UsageError: There is a proxy, and no host of the sample could be reached without it.
    """
    unreached = [one for one in screened if one.reason in NO_RESPONSE or one == Screened(one.image_key)]
    if proxy is not None and screened and len(unreached) == len(screened):
        raise UsageError(
            f"none of {len(screened)} sampled images could be reached, and {proxy} is set: image hosts are"
            " contacted directly, because behind a proxy private addresses could not be refused. Run where"
            " they can be reached, or use --no-screen. Nothing was sent or paid"
        )


async def _show(planned: Plan, estimate: Estimate) -> None:
    get_run_logger().info("%s", headline(estimate))
    await show_estimate(estimate)
    api_key = planned.credentials.api_key.get_secret_value()
    if warning := key_warning(api_key, estimate.paid.high, estimate.rate_per_s):
        get_run_logger().warning("%s", warning)


async def _approved(planned: Plan, estimate: Estimate, prompt: Prompt | None) -> Plan:
    """The plan with the budget that was approved; its identity is that of the plan before it.

    Raises:
        NotApproved: The run is too expensive, and was not approved.
        InputError: The candidates changed meanwhile: what was approved is what is paid for.
    """
    candidates = planned.parameters.candidates
    before = sources.fingerprint(planned.files)
    parameters = await approved(planned.parameters, estimate, prompt)
    with sources.wrap_read_errors(candidates):
        if sources.fingerprint(planned.files) != before:
            raise InputError(f"{candidates} changed while the run waited; start it again")
    return replace(planned, parameters=parameters)


def _task_runner_screener(parameters: CurateParameters) -> AbstractAsyncContextManager[Screener | None]:
    """The screener on a task runner; None where the flow's own event loop screens."""
    runner = parameters.advanced.runner
    if runner == "loop":
        return nullcontext()
    return TaskRunnerScreener(runner, ScreenOptions.of(parameters.screening, parameters.advanced))

"""A person's approval before an expensive run: on a real Prefect server, and at a terminal."""

import asyncio
import os
import pty
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry
from workbench import COMMAND, PRICE_USD, Bench, Ran, files_below, flow_runs, load, wait_until

from s2v_tasks import Advanced, Screening, Spending, curate, pipeline
from s2v_tasks.errors import InputError, NotApproved, S2VError

PRIVATE = Screening(allow_private_hosts=True)
NEEDS_APPROVAL = Spending(approve_above_usd=PRICE_USD)


def curating(bench: Bench, images: int = 5, **groups: Any) -> "asyncio.Task[State[Any]]":
    """Start a run of five images that needs a yes above the price of one."""
    candidates = bench.candidates(bench.portraits(images))
    groups = {"screening": PRIVATE, "spending": NEEDS_APPROVAL, **groups}
    return asyncio.create_task(curate(candidates, str(bench.out), 1.0, **groups, return_state=True))


async def paused(since: set[Any]) -> FlowRun:
    """The run that has paused, as the server knows it, with its form."""

    def find() -> FlowRun | None:
        return next(
            (run for run in flow_runs(limit=3) if run.id not in since and run.state.is_paused()), None
        )

    run: FlowRun = await asyncio.to_thread(wait_until, find)
    await shown(run, "description")
    return run


async def submit(run: FlowRun, **form: object) -> str:
    """Send the form, and say how the server took it."""
    async with get_client() as client:
        return str((await client.resume_flow_run(run.id, run_input=form)).status.value)


async def shown(run: FlowRun, what: str) -> str:
    """What the page shows of a form; it is stored a moment after the run has paused, its description last."""

    def find() -> str | None:
        with suppress(PrefectHTTPStatusError), get_client(sync_client=True) as client:
            return client.read_flow_run_input(run.id, run.state.state_details.run_input_keyset[what])
        return None

    page: str = await asyncio.to_thread(wait_until, find)
    return page


@pytest.fixture
def before(in_process: Bench) -> set[Any]:
    """The runs that were there before."""
    return {run.id for run in flow_runs(limit=10)}


async def test_an_expensive_run_pauses_and_an_approved_one_goes_on(
    in_process: Bench, before: set[Any]
) -> None:
    """While it waits nothing is sent, reserved or written; the form shows the estimate; then it runs."""
    running = curating(in_process)
    run = await paused(before)
    assert in_process.received() == 0
    assert files_below(in_process.folder) == {"candidates.parquet"}  # no run, no ledger, no lease
    said, schema = await shown(run, "description"), await shown(run, "schema")
    assert "5 images to pay for, USD 0.0029" in said
    assert "nothing is sent or paid" in said
    assert "lower the budget" in schema
    assert await submit(run, decision="whatever") == "REJECT"
    assert await submit(run, decision="lower the budget", budget_usd=-1) == "REJECT"
    assert in_process.received() == 0
    assert await submit(run, decision="approve") == "ACCEPT"
    state = await running
    assert (state.is_completed(), state.message) == (True, "published 5 approved images")
    assert len(in_process.billed_urls()) == 5


@pytest.mark.ci
async def test_a_lowered_budget_is_the_one_that_is_kept(in_process: Bench, before: set[Any]) -> None:
    """A form without an amount, or with a higher one, is shown again; then two images are paid for."""
    running = curating(in_process)
    run = await paused(before)
    assert await submit(run, decision="lower the budget") == "ACCEPT"
    for amount, message in [(2.0, "name an amount"), (2 * PRICE_USD, "is no lower budget")]:
        run = await again(run)
        assert message in await shown(run, "description")
        assert await submit(run, decision="lower the budget", budget_usd=amount) == "ACCEPT"
    state = await running
    assert "the budget is exhausted: 3 of 5 rows" in state.message
    assert len(in_process.billed_urls()) == 2
    manifest = load(in_process.out / "runs" / str(run.id) / "manifest.json")
    assert manifest["parameters"]["budget_usd"] == 2 * PRICE_USD


async def again(run: FlowRun) -> FlowRun:
    """The same run, paused once more."""

    def find() -> FlowRun | None:
        now = flow_runs()[0]
        keyset = run.state.state_details.run_input_keyset
        return now if now.state.is_paused() and now.state.state_details.run_input_keyset != keyset else None

    once_more: FlowRun = await asyncio.to_thread(wait_until, find)
    await shown(once_more, "description")
    return once_more


async def test_a_run_that_is_stopped_says_so(in_process: Bench, before: set[Any]) -> None:
    """Its state is failed, with a message; nothing was sent and nothing written."""
    running = curating(in_process)
    assert await submit(await paused(before), decision="stop") == "ACCEPT"
    await refused(in_process, await running, "not approved: 5 images to pay for, USD 0.0029")
    assert NotApproved.exit_status == 5


@pytest.mark.ci
async def test_what_was_approved_is_what_is_paid_for_and_a_retry_needs_approval_again(
    in_process: Bench, before: set[Any]
) -> None:
    """Candidates that changed meanwhile are refused; a retried run reports them and needs approval."""
    running = curating(in_process)
    run = await paused(before)
    in_process.candidates(in_process.portraits(7))
    assert await submit(run, decision="approve") == "ACCEPT"
    await refused(in_process, await running, "changed while the run waited", InputError)
    async with get_client() as client:
        await client.set_flow_run_state(run.id, AwaitingRetry())
        once_more = await client.read_flow_run(run.id)
    # As a worker does.
    retried = asyncio.create_task(
        run_flow_async(curate, flow_run=once_more, parameters=once_more.parameters, return_type="state")
    )
    run = await again(run)
    assert "7 images to pay for" in await shown(run, "description")
    assert await submit(run, decision="approve") == "ACCEPT"
    state = await retried
    assert state.is_completed(), state.message
    assert len(in_process.billed_urls()) == 7


async def test_without_a_decision_the_run_ends_unpaid(in_process: Bench) -> None:
    """After its time the run fails with our message; nothing was sent."""
    state = await curating(in_process, advanced=Advanced(approve_within_h=0.001))
    await refused(in_process, state, "not approved within 0.001 h: 5 images")
    (run,) = await asyncio.to_thread(flow_runs)
    assert run.state is not None
    assert (run.state.name, run.state.message) == ("Failed", state.message)


async def refused(bench: Bench, state: State[Any], message: str, kind: type[S2VError] = NotApproved) -> None:
    """A run that got no yes: failed, no call, no file; not worth an automatic retry."""
    assert state.is_failed()
    assert message in (state.message or "")
    error = await state.aresult(raise_on_failure=False)
    assert isinstance(error, kind)
    assert not error.retryable
    assert (bench.received(), bench.billed_urls()) == (0, [])
    assert files_below(bench.folder) == {"candidates.parquet"}


async def test_a_pipeline_waits_with_its_curation(in_process: Bench, before: set[Any]) -> None:
    """The subflow pauses, the one around it goes on waiting; stopped, no stage is started."""
    stage = in_process.folder / "stage.py"
    stage.write_text("from prefect import flow\n\n\n@flow\ndef stage(path: str):\n    raise RuntimeError\n")
    candidates = in_process.candidates(in_process.portraits(5))
    running = asyncio.create_task(
        pipeline(
            candidates, str(in_process.out), 1.0, f"{stage}:stage",
            screening=PRIVATE, spending=NEEDS_APPROVAL, return_state=True,
        )
    )  # fmt: skip
    assert await submit(await paused(before), decision="stop") == "ACCEPT"
    state = await running
    assert state.is_failed()
    assert "not approved" in state.message
    assert in_process.received() == 0


def test_a_command_without_a_terminal_is_refused(command: Callable[..., Ran], in_process: Bench) -> None:
    """Exit 1, no call, no file, and one line that says how to say yes."""
    candidates = in_process.candidates(in_process.portraits(3))
    before = files_below(in_process.folder)
    ran = command(*in_process.curating(candidates, "--approve-above-usd", 0.001))
    assert (ran.status, ran.out) == (5, "")
    assert "3 images to pay for, USD 0.0017" in ran.err
    assert "raise that, lower --budget-usd to it, or run the command in a terminal" in ran.err
    assert (in_process.received(), files_below(in_process.folder)) == (0, before)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("said", "status", "billed"),
    [
        pytest.param("approve", 0, 3, marks=pytest.mark.ci),
        pytest.param(f"{PRICE_USD}", 4, 1, marks=SLOW),
        pytest.param("stop", 1, 0, marks=SLOW),
        pytest.param("", 1, 0, marks=SLOW),
    ],
)
def test_a_command_prompts_at_its_terminal(bench: Bench, said: str, status: int, billed: int) -> None:
    """The estimate and a question; yes, a lower budget, or anything else, which means stop."""
    candidates = bench.candidates(bench.portraits(3))
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, *map(str, bench.curating(candidates, "--approve-above-usd", 0.001))],
            cwd=bench.folder,
            env=bench.env,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(ours, f"{said}\n".encode())
        out, err = process.communicate(timeout=300)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == status, out + err
    assert len(bench.billed_urls()) == billed
    assert "images to pay for" in err
    assert "approve, a lower budget in USD, or stop?" in out + err

"""A final "no" stays final, and a finished run that is entered again gives its recorded end."""

from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    PREFECT_TASKS_DEFAULT_PERSIST_RESULT,
    PREFECT_TASKS_DEFAULT_RETRIES,
    temporary_settings,
)
from workbench import Bench, Ran, files_below, flow_runs

from s2v_tasks import CurationResult, Screening, Thresholds, curate, pipeline
from s2v_tasks.errors import BudgetExhausted, GateClosed, InputError

PRIVATE = Screening(allow_private_hosts=True)


def snapshot(bench: Bench) -> tuple[dict[str, bytes], int]:
    """Every file below the output folder but the ledger's, and the calls received."""
    files = {n: (bench.out / n).read_bytes() for n in files_below(bench.out) if (bench.out / n).is_file()}
    return {name: content for name, content in files.items() if "ledger" not in name}, bench.received()


NO = {
    "gate": ({"thresholds": Thresholds(min_pass_rate=0.9)}, GateClosed),
    "budget": ({"budget_usd": 0.0006}, BudgetExhausted),
    "input": ({"candidates": "/no/such.parquet"}, InputError),
}


@pytest.mark.parametrize(
    "kind", ["gate", *(pytest.param(k, marks=pytest.mark.ci) for k in ("budget", "input"))]
)
async def test_a_no_stays_final_whatever_retries_are_set(in_process: Bench, kind: str) -> None:
    """``with_options(retries=2)``: the body runs once, and the state is Failed with the error itself."""
    more, error_class = NO[kind]
    given: dict[str, Any] = {
        "candidates": in_process.candidates([in_process.url(1, "crowd"), in_process.url(2)]),
        "out": str(in_process.out),
        "budget_usd": 1.0,
        "screening": PRIVATE,
        **more,
    }
    state = await curate.with_options(retries=2, retry_delay_seconds=0)(**given, return_state=True)
    assert (state.name, type(await state.aresult(raise_on_failure=False))) == ("Failed", error_class)
    (run,) = flow_runs()
    assert (run.run_count, run.state.name) == (1, "Failed")


@pytest.mark.ci
def test_a_finished_run_entered_again_gives_its_recorded_end(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """By ``--run-id``: same message and exit status, no call, and no file is written again."""
    bench = in_process
    urls = [bench.url(1, "crowd"), bench.url(2)]
    candidates = bench.candidates(urls)
    for run_id, options, status in ("open", (), 0), ("shut", ("--min-pass-rate", 0.9), 3):
        arguments = bench.curating(candidates, "--run-id", run_id, *options)
        first, before = command(*arguments), snapshot(bench)
        assert first.status == status, first.err
        again = command(*arguments)
        assert (again.status, again.out) == (first.status, first.out)
        assert (status == 0) or (again.err.splitlines()[-1] == first.err.splitlines()[-1])
        assert snapshot(bench) == before
    other = command(*bench.curating(candidates, "--run-id", "open", "--min-pass-rate", 0.1))
    assert other.status == 2
    assert "run open had another input or other parameters" in other.err


@pytest.mark.ci
async def test_a_caller_gets_the_same_result_from_a_finished_run(in_process: Bench) -> None:
    """The record is equal, publication included, although a later run has published meanwhile."""
    given: dict[str, Any] = {"out": str(in_process.out), "budget_usd": 1.0, "screening": PRIVATE}
    first = in_process.candidates(in_process.portraits(2))
    before: CurationResult = await curate(first, advanced={"run_id": "mine"}, **given)
    await curate(in_process.candidates(in_process.portraits(3), "other.parquet"), **given)
    calls = in_process.received()
    assert await curate(first, advanced={"run_id": "mine"}, **given) == before
    assert in_process.received() == calls


@pytest.mark.ci
async def test_a_pipeline_that_is_retried_enters_the_same_curation(in_process: Bench) -> None:
    """Its stage fails once: one run, published once, and the stage gets its file at the retry."""
    stage = in_process.folder / "stage.py"
    stage.write_text(STAGE)
    state = await pipeline.with_options(retries=1, retry_delay_seconds=0)(
        in_process.candidates(in_process.portraits(2)),
        str(in_process.out),
        1.0,
        f"{stage}:stage",
        screening=PRIVATE,
        return_state=True,
    )
    assert state.is_completed(), state.message
    (run,) = (in_process.out / "runs").iterdir()
    assert run.name == str(flow_runs("pipeline")[0].id)
    assert (in_process.folder / "received").read_text() == str(run / "approved.parquet")
    assert in_process.received() == 2


STAGE = """
from pathlib import Path
from prefect import flow
from prefect.settings import (
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    PREFECT_TASKS_DEFAULT_PERSIST_RESULT,
    PREFECT_TASKS_DEFAULT_RETRIES,
    temporary_settings,
)


@flow
def stage(path: str):
    first = Path(__file__).with_name("first")
    if not first.exists():
        first.touch()
        raise RuntimeError("once")
    Path(__file__).with_name("received").write_text(path)
"""


@pytest.mark.ci
async def test_a_result_does_not_depend_on_prefects_settings(in_process: Bench) -> None:
    """Persisted by a caller's wish, under a default serializer that can't hold it, it comes back whole."""
    changed = {PREFECT_RESULTS_DEFAULT_SERIALIZER: "json", PREFECT_RESULTS_PERSIST_BY_DEFAULT: True,
               PREFECT_TASKS_DEFAULT_RETRIES: 3, PREFECT_TASKS_DEFAULT_PERSIST_RESULT: True}  # fmt: skip
    with temporary_settings(changed):

        @flow(persist_result=True)
        async def caller() -> CurationResult:
            candidates = in_process.candidates(in_process.portraits(1))
            out = str(in_process.out)
            return await curate.with_options(persist_result=True)(candidates, out, 1.0, screening=PRIVATE)

        run = await caller()
        (stored,) = flow_runs()
        assert stored.state is not None
        assert await stored.state.aresult() == run
    assert (run.status, run.summary.passed) == ("published", 1)

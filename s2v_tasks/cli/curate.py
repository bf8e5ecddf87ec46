"""``s2v curate``: one run, from candidates to a published dataset, and what is printed at its end."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.cli.app import fail
from s2v_tasks.cli.launch import error_of, prepare_prefect, warn
from s2v_tasks.cli.option_schema import show_schema
from s2v_tasks.cli.options import NEW_RUN_HELP, Candidates, Debug, Given, Query, one_of, takes, verb
from s2v_tasks.cli.result import Json, result
from s2v_tasks.domain.ssrf import PRIVATE_ALLOWED
from s2v_tasks.errors import BudgetExhausted, S2VError, UsageError
from s2v_tasks.settings import PREFECT_TAG, CurateParameters, EstimateParameters

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from s2v_tasks.adapters.storage.file_io import StoragePath
    from s2v_tasks.runtime.finalize import CurationResult
    from s2v_tasks.runtime.run_context import RunContext

app = verb()


@app.command()
@takes(CurateParameters)
def curate(
    candidates: Candidates = None,
    query: Query = None,
    *,
    given: Given,
    new_run: Annotated[bool, typer.Option("--new-run", help=NEW_RUN_HELP)] = False,
    schema: Annotated[  # noqa: ARG001  (its callback ends the command)
        bool,
        typer.Option(
            "--schema", is_eager=True, callback=show_schema, help="Print the JSON Schema of these options."
        ),
    ] = False,
    debug: Debug = False,
    as_json: Json = False,  # noqa: ARG001  (read by main)
) -> None:
    """Curate candidate images into a gated, published dataset."""
    parameters = given.as_model(CurateParameters, candidates=one_of(candidates, query))
    if parameters.advanced.run_id is not None and new_run:
        raise UsageError("--run-id names a run and --new-run starts another: leave one of the two out")
    prefect_server.prestart()
    warnings = [*given.warnings, *private_hosts(parameters)]
    raise typer.Exit(run_curation(parameters, warnings, new_run=new_run, debug=debug))


def private_hosts(parameters: EstimateParameters) -> list[str]:
    """The warning that private hosts are allowed, if they are."""
    screening = parameters.screening
    return [PRIVATE_ALLOWED] if screening.enabled and screening.allow_private_hosts else []


def run_curation(
    parameters: CurateParameters, warnings: Iterable[str] = (), *, new_run: bool, debug: bool
) -> int:
    """Run the `curate` flow, show it on the terminal, and give the exit status."""
    from datetime import UTC, datetime

    from rich.console import Console

    from s2v_tasks.adapters.storage.run_folder import RunFolder, find_unfinished, new_run_id
    from s2v_tasks.runtime.plan import plan

    planned = plan(parameters)
    warn(warnings)
    unfinished, run_id = None, parameters.advanced.run_id
    if run_id is None:
        unfinished = None if new_run else find_unfinished(planned.out, planned.identity)
        run_id = unfinished or new_run_id(datetime.now(UTC))
    run_dir = RunFolder(planned.out, run_id).path
    console = Console(stderr=True)
    prepare_prefect(debug=debug)
    from prefect import tags

    from s2v_tasks.adapters import gx
    from s2v_tasks.cli.terminal import LiveBar, ask
    from s2v_tasks.domain.estimate import key_warning
    from s2v_tasks.domain.ledger import images_bought
    from s2v_tasks.flows.curate import curate as curate_flow
    from s2v_tasks.runtime.plan import OWN_LEDGER
    from s2v_tasks.tasks import APPROVAL_PROMPT, ON_RUN_OPENED

    bar = LiveBar(console)

    def opened(run: "RunContext") -> None:
        """Printed only now: a command that can't begin prints one line, what is wrong with it."""
        notes = []
        if planned.has_own_ledger:
            notes.append(f"ledger     {OWN_LEDGER}")
        if unfinished:
            notes.append(f"continuing run {run_id}, which did not finish")
        key = planned.credentials.api_key.get_secret_value()
        bought = images_bought(parameters.budget_usd, planned.scope.detector.price_micro_usd)
        if warning := key_warning(key, min(run.partitions.images, bought), run.rate_limit.rate_per_s):
            notes.append(f"warning: {warning}")
        for note in notes:
            console.print(note, highlight=False, soft_wrap=True)
        result().opened(run_dir)
        bar.follow(run)

    ON_RUN_OPENED.set(opened)
    APPROVAL_PROMPT.set(partial(ask, bar))
    arguments = {name: getattr(parameters, name) for name in type(parameters).model_fields}
    arguments["advanced"] = parameters.advanced.model_copy(update={"run_id": run_id})
    gx.preload()
    with bar.shown(), tags(PREFECT_TAG):
        prefect_server.wait_until_ready()
        state = asyncio.run(curate_flow(**arguments, return_state=True))
    return _show(state, run_dir)


def _show(state: "State[Any]", run_dir: "StoragePath") -> int:
    """Print what came of a curation run, and give its exit status."""
    from rich.console import Console

    from s2v_tasks.adapters.storage import pointer

    error = error_of(state)
    if isinstance(error, UsageError):
        raise error
    result().opened(run_dir)
    try:
        _report(run_dir)
    except (S2VError, OSError) as unreadable:  # the run's end is stored, and its status stands
        fail(f"the report can't be shown: {unreadable}", 0)
    if error is not None:
        result().ended(error)
        return fail(str(error), error.exit_status)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{'pointer':<10} {pointer.path_of(run_dir.parent.parent)}", markup=False)
    console.print(f"[bold green]{state.message}[/]")
    curated: CurationResult = asyncio.run(state.aresult())
    result().completed("superseded" if curated.publication is None else "published", curated.message)
    return BudgetExhausted.exit_status if curated.summary.left_over else 0


def _report(run_dir: "StoragePath") -> None:
    """Print the funnel, the cost and the files of a run."""
    from rich.console import Console

    from s2v_tasks.adapters.storage.run_folder import open_run_folder
    from s2v_tasks.cli.terminal import funnel, money, output_paths
    from s2v_tasks.domain.summary import NAMED_REASONS
    from s2v_tasks.runtime.verdict_file import summary_of

    console = Console(highlight=False, soft_wrap=True)
    verdicts = run_dir / "verdicts.parquet"
    if verdicts.exists():
        parameters = open_run_folder(run_dir).read().parameters
        source, limit = parameters.source, parameters.thresholds.max_missed_share
        summary = summary_of(verdicts, source.url_column, source.segment_column)
        console.print(funnel(summary, console.encoding))
        console.print(money(summary))
        for label, text in [] if summary.faces is None else summary.faces.lines(limit):
            console.print(f"{label:<10} {text}", markup=False)
        for reason in NAMED_REASONS:
            if hosts := summary.host_list(reason):
                console.print(f"{reason:<10} {hosts}", markup=False)
        for label, path in output_paths(run_dir):
            console.print(f"{label:<10} {path}", markup=False)

"""The ``s2v`` command. Imports what a command needs only when it runs: ``--help`` must answer at once.

Exit status, first that applies: 2 bad usage, 1 stopped on the way (the same command continues), 4 budget
spent before all was judged, 3 gate closed, 0 published.
"""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from s2v_tasks import ledger_command, prefect_command
from s2v_tasks.addresses import PRIVATE_ALLOWED
from s2v_tasks.errors import S2VError, UsageError
from s2v_tasks.options import (
    AllowPartial,
    AllowPort,
    AllowPrivateHosts,
    Candidates,
    Debug,
    FreshFor,
    Limit,
    MaxCost,
    MaxCostPerApproved,
    MaxError,
    MaxUnknown,
    MaxUnreachable,
    MinPassRate,
    NoScreen,
    OnUnknownAnswer,
    Query,
    Runner,
    Sample,
    Seed,
    StratifyBy,
    UrlColumn,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from s2v_tasks.adapters.storage import Place
    from s2v_tasks.runs import Run
    from s2v_tasks.settings import CurateParameters, Screening

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Curate portrait-image URLs: screen for free, judge at the account's pace, gate, publish.",
)
app.add_typer(ledger_command.app, name="ledger")
app.add_typer(prefect_command.app, name="prefect")

_TYPER_INTERRUPTED = 130  # what Typer gives for a Ctrl-C


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"s2v-tasks {version('s2v-tasks')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What stands before a command."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is written.")] = Path("s2v-demo"),
    debug: Debug = False,
) -> None:
    """Curate a set of sample pictures against an emulated service: no key, no cost, loopback only."""
    # Also Prefect's: somebody's page, database or limits are not the demo's.
    for name in [n for n in os.environ if n.startswith(("S2V_", "DASHSCOPE_", "PREFECT_"))]:
        del os.environ[name]
    from s2v_tasks.adapters import prefect_server
    from s2v_tasks.emulator import Emulator, EmulatorOptions
    from s2v_tasks.emulator.samples import write_candidates
    from s2v_tasks.plan import check_out

    check_out(out)
    os.environ["PREFECT_HOME"] = str((out / ".prefect").resolve())
    os.environ["PREFECT_API_URL"] = prefect_server.start()
    with Emulator(EmulatorOptions()) as emulator:
        os.environ |= {"DASHSCOPE_API_KEY": "demo", "DASHSCOPE_HTTP_BASE_URL": emulator.base_url}
        out.mkdir(parents=True, exist_ok=True)
        candidates = out / "candidates.parquet"
        write_candidates(candidates, emulator.origin)
        parameters = _parameters(
            candidates=str(candidates),
            out=str(out),
            budget_usd=0.10,
            source={"segment_column": None},
            screening={"allow_private_hosts": True},
        )
        typer.echo("An emulated service stands for the vendor's: real HTTP, its rate limit, no real charge.")
        status = _curate(parameters, None, new_run=True, debug=debug)
        typer.echo(f"invoice    {len(emulator.invoice())} calls billed by the emulated service")
    raise typer.Exit(status)


@app.command()
def curate(
    out: Annotated[str, typer.Option(help="Folder for everything that is written; a path or s3://...")],
    budget_usd: Annotated[float, typer.Option(help="What this run may spend at most, USD.")],
    candidates: Candidates = None,
    query: Query = None,
    url_column: UrlColumn = "image_url",
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    stratify_by: StratifyBy = None,
    segment_column: Annotated[
        str | None, typer.Option(help="Every value of this column must pass the gate on its own too.")
    ] = None,
    min_pass_rate: MinPassRate = None,
    max_cost_usd: MaxCost = None,
    max_cost_per_approved_usd: MaxCostPerApproved = None,
    max_unknown_share: MaxUnknown = None,
    max_error_share: MaxError = None,
    max_unreachable_share: MaxUnreachable = None,
    allow_partial: AllowPartial = False,
    ledger: Annotated[
        str | None,
        typer.Option(help="sqlite:///PATH or postgresql://... [default: S2V_LEDGER_URL, OUT/ledger.sqlite3]"),
    ] = None,
    account: Annotated[str, typer.Option(help="Runs of one account share its rate.")] = "default",
    budget_name: Annotated[
        str | None, typer.Option(help="Runs with this name share one cap, the latest.")
    ] = None,
    on_unknown: OnUnknownAnswer = "retry",
    no_screen: NoScreen = False,
    allow_private_hosts: AllowPrivateHosts = False,
    allow_port: AllowPort = None,
    fresh_for_h: FreshFor = 24.0,
    same_content: Annotated[
        bool, typer.Option("--same-content", help="Fetch what is kept whole; pay once for the same bytes.")
    ] = False,
    runner: Runner = "loop",
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Approve the duplicates of passed rows too.")
    ] = False,
    approve_above_usd: Annotated[
        float | None, typer.Option(help="Ask before a run whose estimate is over this, USD. [default: never]")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Name of the run to begin or to continue.")] = None,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Begin anew, even if an unfinished run could be continued.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Curate candidate pictures into a gated, published data set."""
    if run_id is not None and new_run:
        raise UsageError("--run-id names a run and --new-run begins another: leave one of the two out")
    if ledger is not None:
        # By the environment, not as a parameter: Prefect stores parameters, and a URL may hold a password.
        os.environ["S2V_LEDGER_URL"] = ledger
    thresholds = _given(
        min_pass_rate=min_pass_rate,
        max_cost_usd=max_cost_usd,
        max_cost_per_approved_usd=max_cost_per_approved_usd,
        max_unknown_share=max_unknown_share,
        max_error_share=max_error_share,
        max_unreachable_share=max_unreachable_share,
        allow_partial=allow_partial,
    )
    parameters = _parameters(
        candidates=_one_of(candidates, query),
        out=out,
        budget_usd=budget_usd,
        source={
            "url_column": url_column,
            "limit": limit,
            "sample": sample,
            "seed": seed,
            "stratify_by": stratify_by,
            "segment_column": segment_column,
        },
        screening={
            **_screening(no_screen, allow_private_hosts, allow_port),
            "fresh_for_h": fresh_for_h,
            "same_content": same_content,
            "runner": runner,
        },
        thresholds=thresholds,
        spending={
            "account": account,
            "budget_name": budget_name,
            "on_unknown": on_unknown,
            "approve_above_usd": approve_above_usd,
        },
        output={"keep_duplicates": keep_duplicates},
    )
    raise typer.Exit(_curate(parameters, run_id, new_run=new_run, debug=debug))


@app.command()
def estimate(
    candidates: Candidates = None,
    query: Query = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="What a run would spend at most, USD. [default: no limit]")
    ] = None,
    url_column: UrlColumn = "image_url",
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    stratify_by: StratifyBy = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            help="What is known already: sqlite:///PATH or postgresql://... [default: S2V_LEDGER_URL]"
        ),
    ] = None,
    on_unknown: OnUnknownAnswer = "retry",
    estimate_from: Annotated[int, typer.Option(help="Look at so many pictures, at random.")] = 200,
    no_screen: NoScreen = False,
    allow_private_hosts: AllowPrivateHosts = False,
    allow_port: AllowPort = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Tell what a curation run would cost, without any call that is paid for: no key is needed."""
    from rich.console import Console

    from s2v_tasks.estimate import NOTE
    from s2v_tasks.plan import question
    from s2v_tasks.settings import EstimateParameters
    from s2v_tasks.survey import survey
    from s2v_tasks.terminal import estimated

    if ledger is not None:
        os.environ["S2V_LEDGER_URL"] = ledger
    groups = {
        "source": {
            "url_column": url_column,
            "limit": limit,
            "sample": sample,
            "seed": seed,
            "stratify_by": stratify_by,
        },
        "screening": {
            **_screening(no_screen, allow_private_hosts, allow_port),
            "estimate_from": estimate_from,
        },
        "spending": {"on_unknown": on_unknown},
    }
    values = {"candidates": _one_of(candidates, query), "budget_usd": budget_usd, **groups}
    asked = question(_checked(EstimateParameters, values))
    _warn(asked.parameters.screening)
    found = asyncio.run(survey(asked, asked.scope.profile.rate_per_s)).estimate
    console = Console(highlight=False)
    console.print(estimated(found))
    console.print(NOTE, style="dim")


@app.command()
def gate(
    run_dir: Annotated[str, typer.Argument(help="Folder of a finished run: OUT/runs/<run_id>")],
    min_pass_rate: MinPassRate = None,
    max_cost_usd: MaxCost = None,
    max_cost_per_approved_usd: MaxCostPerApproved = None,
    max_unknown_share: MaxUnknown = None,
    max_error_share: MaxError = None,
    max_unreachable_share: MaxUnreachable = None,
    allow_partial: AllowPartial = False,
    publish: Annotated[bool, typer.Option("--publish", help="Publish the run if the gate is open.")] = False,
    debug: Debug = False,
) -> None:
    """Judge a finished run again: no call, no cost. Limits not named are those of the run."""
    from s2v_tasks.adapters.folder import RunFolder
    from s2v_tasks.adapters.storage import place
    from s2v_tasks.settings import Thresholds

    given = _given(
        min_pass_rate=min_pass_rate,
        max_cost_usd=max_cost_usd,
        max_cost_per_approved_usd=max_cost_per_approved_usd,
        max_unknown_share=max_unknown_share,
        max_error_share=max_error_share,
        max_unreachable_share=max_unreachable_share,
        allow_partial=allow_partial,
    )
    former = RunFolder.of(place(run_dir)).read().parameters.thresholds
    thresholds = _checked(Thresholds, {**former.model_dump(), **given})
    _prepare_prefect(debug=debug)
    from s2v_tasks.flows.gate import gate as gate_flow

    state = asyncio.run(gate_flow(run_dir, thresholds, publish, return_state=True))
    error = _error_of(state)
    typer.echo(state.message)
    raise typer.Exit(0 if error is None else error.exit_status)


@app.command()
def emulator(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.")] = 8765,
    window: Annotated[
        str, typer.Option(help="How calls are counted: sliding, fixed, leaky, minute.")
    ] = "sliding",
    limit: Annotated[float, typer.Option(help="Calls allowed a second.")] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="An error on demand, such as InternalError:rate=0.05 or drop:match=*/slow/*,times=2"
        ),
    ] = None,
    latency_s: Annotated[float, typer.Option(help="Seconds a call takes.")] = 0.0,
    jitter_s: Annotated[float, typer.Option(help="Up to so many seconds more.")] = 0.0,
    arrival_jitter_s: Annotated[float, typer.Option(help="Calls arrive up to so many seconds late.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Repeats jitter and faults.")] = 0,
    invoice: Annotated[Path | None, typer.Option(help="Append every billed call to this file.")] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Run the emulated detect service on loopback, with sample pictures and an invoice."""
    from s2v_tasks.emulator import EmulatorOptions, serve

    options = EmulatorOptions(
        port=port,
        window=window,
        limit=limit,
        faults=tuple(fault or ()),
        latency_s=latency_s,
        jitter_s=jitter_s,
        arrival_jitter_s=arrival_jitter_s,
        seed=seed,
        invoice_path=invoice,
    )
    serve(options, ready=lambda url: typer.echo(f"DASHSCOPE_HTTP_BASE_URL={url}"))


def main() -> NoReturn:
    """The command: one clear line for whatever goes wrong, and the exit status that says which kind."""
    debug = "--debug" in sys.argv
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        status = _say(f"{error.format_message()} (s2v --help shows how)", 2)
    except S2VError as error:
        if debug:
            raise
        status = _say(str(error), error.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        status = _TYPER_INTERRUPTED
    except Exception as error:
        if debug:
            raise
        status = _say(f"a defect: {type(error).__name__}: {error}; --debug shows where", 1)
    if status == _TYPER_INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one must not change the exit status
        status = _say("interrupted; the same command continues", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _curate(parameters: "CurateParameters", run_id: str | None, *, new_run: bool, debug: bool) -> int:
    from datetime import UTC, datetime

    from rich.console import Console

    from s2v_tasks.adapters.folder import RunFolder, find_unfinished, new_run_id
    from s2v_tasks.plan import plan

    planned = plan(parameters)
    _warn(parameters.screening)
    unfinished = None
    if run_id is None:
        unfinished = None if new_run else find_unfinished(planned.out, planned.identity)
        run_id = unfinished or new_run_id(datetime.now(UTC))
    run_dir = RunFolder(planned.out, run_id).path
    console = Console(stderr=True)
    _prepare_prefect(debug=debug)
    from prefect import tags

    from s2v_tasks.approval import ASK
    from s2v_tasks.flows.curate import curate as curate_flow
    from s2v_tasks.runs import WATCHER
    from s2v_tasks.settings import PREFECT_TAG
    from s2v_tasks.terminal import LiveBar, ask

    bar = LiveBar(console)

    def opened(run: "Run") -> None:
        """Said only now: a command that can't begin says one thing, what is wrong with it."""
        notes = []
        if planned.has_own_ledger:
            notes.append(
                "ledger     outputs that share an account need one ledger: --ledger or S2V_LEDGER_URL"
            )
        if unfinished:
            notes.append(f"continuing run {run_id}, which did not finish")
        for note in notes:
            console.print(note, highlight=False, soft_wrap=True)
        bar.follow(run)

    WATCHER.set(opened)
    ASK.set(partial(ask, bar))
    arguments = {name: getattr(parameters, name) for name in type(parameters).model_fields}
    with bar.shown(), tags(PREFECT_TAG):
        state = asyncio.run(curate_flow(**arguments, run_id=run_id, return_state=True))
    return _show(state, run_dir)


def _show(state: "State[Any]", run_dir: "Place") -> int:
    """Print what came of a curation run, and give its exit status."""
    from rich.console import Console

    from s2v_tasks.adapters import storage
    from s2v_tasks.parts import summary_of
    from s2v_tasks.terminal import funnel, money, places

    error = _error_of(state)
    if isinstance(error, UsageError):
        raise error
    console = Console(highlight=False, soft_wrap=True)
    verdicts, unspent = run_dir / "verdicts.parquet", 0
    if verdicts.exists():
        summary = summary_of(verdicts)
        unspent = summary.unspent
        console.print(funnel(summary))
        console.print(money(summary))
        for label, path in places(run_dir):
            console.print(f"{label:<10} {path}", markup=False)
    if error is not None:
        _say(str(error), error.exit_status)
        return error.exit_status
    console.print(f"{'pointer':<10} {storage.pointer_path(run_dir.parent.parent)}", markup=False)
    console.print(f"[bold green]{state.message}[/]")
    return 4 if unspent else 0


def _error_of(state: "State[Any]") -> S2VError | None:
    """The obstacle that ended a flow, or None if it completed."""
    if state.is_completed():
        return None
    error = asyncio.run(state.aresult(raise_on_failure=False))
    if isinstance(error, S2VError):
        return error
    return S2VError(f"the flow ended {state.name}: {state.message}; --debug shows more")


def _prepare_prefect(*, debug: bool) -> None:
    """Prefect, on the user's server or one of our own; its log stays on its page unless asked for."""
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from s2v_tasks.adapters.prefect_server import ensure_prefect_api

    ensure_prefect_api()


def _one_of(candidates: str | None, query: str | None) -> str:
    if query is None and candidates is not None:
        return candidates
    if query is None or candidates is not None:
        raise UsageError("name the CANDIDATES, or a --query: one of them")
    return f"sql:{query}"


def _screening(no_screen: bool, allow_private_hosts: bool, allow_port: list[int] | None) -> dict[str, object]:
    ports = tuple(allow_port or ())
    return {"enabled": not no_screen, "allow_private_hosts": allow_private_hosts, "allow_ports": ports}


def _warn(screening: "Screening") -> None:
    """Said of a command that can begin: one that can't says one thing, what is wrong with it."""
    if screening.enabled and screening.allow_private_hosts:
        typer.echo(f"warning: {PRIVATE_ALLOWED}", err=True)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None and value is not False}


def _parameters(**values: object) -> "CurateParameters":
    from s2v_tasks.settings import CurateParameters

    parameters: CurateParameters = _checked(CurateParameters, values)
    return parameters


def _checked(model: Any, values: dict[str, Any]) -> Any:
    """A group of parameters, or one line that names the option and what is wrong with its value."""
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][-1]).replace("_", "-")
        raise UsageError(f"--{option}: {first['msg']} (given: {first['input']!r})") from None


def _say(line: str, status: int) -> int:
    typer.echo(f"s2v: {line}", err=True)
    return status


if __name__ == "__main__":
    main()

"""``s2v ledger``: attempts and charges of a ledger. Only ``revoke`` and ``upgrade`` change anything."""

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2v_tasks.cli.options import Debug
from s2v_tasks.cli.result import Json, result
from s2v_tasks.errors import DataIntegrityError, InputError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from s2v_tasks.adapters.database.revocation import Selection

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Report what was sent, received and paid; free of charge.",
)

LedgerUrl = Annotated[
    str | None, typer.Option("--ledger", help="sqlite:///PATH or postgresql://... [default: S2V_LEDGER_URL]")
]
MAX_NAMED = 10


@app.command()
def show(
    ledger: LedgerUrl = None,
    by: Annotated[str, typer.Option(help="run, day or model")] = "run",
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Print calls and charges by run, day or model, with what may have been charged for lost responses."""
    from s2v_tasks.cli.tables import print_table
    from s2v_tasks.domain import ledger_report

    grouping = next((known for known in ledger_report.GROUPINGS if known == by), None)
    if grouping is None:
        raise UsageError(f"--by: {', '.join(ledger_report.GROUPINGS)} (given: {by!r})")
    balance = ledger_report.balance(_attempts(ledger).lazy(), grouping).collect()
    rows = [
        [f"{value:.6f}" if isinstance(value, float) else str(value) for value in row]
        for row in balance.iter_rows()
    ]
    print_table([by, *balance.columns[1:]], rows, texts=[by], fold_names=True)
    total = balance.select("calls", "billed", "unknown", "lifetime_cost_usd", "unconfirmed_usd").sum().row(0)
    result().details["balance"] = balance.to_dicts()
    _done(
        f"{total[0]} calls, {total[1]} billed (USD {total[3]:.6f}), {total[2]} without a response;"
        f" at most USD {total[4]:.6f} more may have been charged"
    )


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="a parquet file to write")],
    ledger: LedgerUrl = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Write every attempt to a parquet file: keys and hosts, no URLs."""
    from s2v_tasks.adapters.storage import file_io

    attempts = _attempts(ledger)
    file_io.write_whole(file, attempts.write_parquet)
    result().details["file"] = str(file)
    _done(f"{attempts.height} attempts in {file}")


@app.command()
def reconcile(
    invoice: Annotated[Path, typer.Argument(help="a CSV of the vendor's, with a column of request ids")],
    ledger: LedgerUrl = None,
    column: Annotated[str, typer.Option(help="that column")] = "request_id",
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Compare the vendor's list of billed request ids with the ledger; exit 5 if they disagree."""
    import polars as pl

    from s2v_tasks.adapters.storage import sources
    from s2v_tasks.domain import ledger_report

    if not invoice.is_file():
        raise InputError(f"no such file: {invoice}; name the vendor's CSV")
    with sources.wrap_read_errors(str(invoice)):
        sources.check_records([invoice])
        invoiced = pl.read_csv(invoice, infer_schema=False)
    if column not in invoiced.columns:
        raise InputError(f"{invoice} has no column {column!r}; it has: {', '.join(invoiced.columns)}")
    found = ledger_report.reconcile(_attempts(ledger), invoiced[column])
    result().details["reconciliation"] = {**asdict(found), "unexplained": found.unexplained}
    _done(
        f"{found.matched} calls on both; {len(found.only_invoice)} only on the invoice, where the ledger has"
        f" {found.unknown} without a response; {len(found.only_ledger)} only in the ledger"
    )
    if found.unexplained:
        typer.echo(f"{found.unexplained} charges are not this ledger's: {_some(found.only_invoice)}")
    if found.only_ledger:
        typer.echo(f"billed here and not on the invoice: {_some(found.only_ledger)}")
    if not found.agrees:
        result().ended(DataIntegrityError(f"invoice and ledger disagree: {result().message}"))
        raise typer.Exit(DataIntegrityError.exit_status)


@app.command()
def revoke(
    ledger: LedgerUrl = None,
    code: Annotated[list[str] | None, typer.Option(help="verdicts with this code of the vendor")] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="... with this reason, docs/reference/reasons.md")
    ] = None,
    run: Annotated[list[str] | None, typer.Option(help="... that this run stored")] = None,
    key: Annotated[list[str] | None, typer.Option(help="... of the image with this image_key")] = None,
    why: Annotated[str, typer.Option(help="kept beside the revoked verdicts")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do it without asking")] = False,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Revoke stored verdicts that were wrong, so that the next run checks their images again.

    Several criteria narrow the selection. Charges stay, with a trace. Only what was free can be revoked.
    """
    from s2v_tasks.adapters.database.revocation import Selection

    selection = Selection(code or (), reason or (), run or (), key or ())
    if selection.is_empty:
        raise UsageError("which verdicts? name them by --code, --reason, --run or --key")
    asyncio.run(_revoke(_url_of(ledger), selection, why, yes=yes))


async def _revoke(url: str, selection: "Selection", why: str, *, yes: bool) -> None:
    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database.ledger import Ledger

    async with Ledger(url, SystemClock(), existing=True) as ledger:
        found = await ledger.revocations.selected(selection)
        free, billed = found.filter(~found["is_billed"]), found.filter("is_billed").height
        kept = (
            f"{billed} are billed and stay: an image is never charged a second time, so none of them could be"
            " checked again"
        )
        if found.is_empty():
            raise UsageError("no stored verdict matches; s2v ledger show --by run names the runs")
        if free.is_empty():
            raise UsageError(f"nothing can be revoked: {kept}")
        for line in _revocable(free):
            typer.echo(line)
        if billed:
            typer.echo(kept)
        if not yes and not sys.stdin.isatty():
            raise UsageError("nothing is revoked yet: add --yes, or run the command in a terminal")
        if not yes and not typer.confirm(f"Revoke {free.height} verdicts?"):
            raise UsageError("nothing is revoked")
        revoked = await ledger.revocations.revoke(selection, why)
    result().details["revoked"] = revoked
    _done(f"{revoked} verdicts revoked; every charge is kept, and the next run checks these images again")


def _revocable(free: "pl.DataFrame") -> list[str]:
    """What is to be revoked, most frequent first, with a message as a sample."""
    import polars as pl

    groups = (
        free.group_by("outcome", "reason", "code")
        .agg(pl.len().alias("images"), pl.col("message").drop_nulls().first(), pl.col("run_id").n_unique())
        .sort("images", "code", descending=[True, False])
    )
    return [
        f"{images} {outcome} {reason or '-'} ({code or 'no code'}) of {runs} runs, such as: {message or '-'}"
        for outcome, reason, code, images, message, runs in groups.iter_rows()
    ]


@app.command()
def upgrade(
    ledger: LedgerUrl = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Bring an older ledger to this program's schema, in one transaction. A curation run does so too."""
    before, after = asyncio.run(_upgrade(_url_of(ledger)))
    _done(f"schema {before} upgraded to {after}" if before != after else f"schema {after}, the newest")


def _done(message: str) -> None:
    """Print the last line, which is the result in words."""
    typer.echo(message)
    result().completed("done", message)


def _attempts(ledger: str | None) -> "pl.DataFrame":
    """Every attempt of an existing ledger."""
    return asyncio.run(_read(_url_of(ledger)))


def _url_of(ledger: str | None) -> str:
    from s2v_tasks.settings import Environment

    url = ledger or Environment().ledger_url
    if url is None:
        raise UsageError("which ledger? name it with --ledger or in S2V_LEDGER_URL")
    return url


async def _upgrade(url: str) -> tuple[int, int]:
    """The versions of the schema before and after."""
    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database.ledger import Ledger
    from s2v_tasks.adapters.database.migrations import SCHEMA

    async with Ledger(url, SystemClock(), existing=True, upgrades=True) as ledger:
        return ledger.version, SCHEMA.version


async def _read(url: str) -> "pl.DataFrame":
    import polars as pl

    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database.ledger import Ledger
    from s2v_tasks.domain import ledger_report

    async with Ledger(url, SystemClock(), existing=True) as ledger:
        frames = [frame async for frame in ledger.attempts()]
    return pl.concat([pl.DataFrame(schema=ledger_report.SCHEMA), *frames])


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more

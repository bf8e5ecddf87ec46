"""``s2v ledger``: the books of a ledger, for whoever pays the bill. Asks nobody and changes nothing."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2v_tasks.errors import InputError, UsageError
from s2v_tasks.options import Debug

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What was asked, answered and paid; free of charge."
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
) -> None:
    """Print calls and charges by run, day or model, with what may have been charged without an answer."""
    from rich.console import Console
    from rich.table import Table

    from s2v_tasks import books

    grouping = next((known for known in books.GROUPINGS if known == by), None)
    if grouping is None:
        raise UsageError(f"--by: {', '.join(books.GROUPINGS)} (given: {by!r})")
    balance = books.balance(_attempts(ledger).lazy(), grouping).collect()
    table = Table(box=None, header_style="bold")
    for name in balance.columns:
        table.add_column(name, justify="left" if name == by else "right", no_wrap=True)
    for row in balance.iter_rows():
        table.add_row(*(f"{value:.6f}" if isinstance(value, float) else str(value) for value in row))
    total = balance.select("calls", "billed", "unknown", "paid_usd", "feared_usd").sum().row(0)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"{total[0]} calls, {total[1]} billed (USD {total[3]:.6f}), {total[2]} without an answer;"
        f" at most USD {total[4]:.6f} more may have been charged"
    )


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="a parquet file to write")],
    ledger: LedgerUrl = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Write every attempt to a parquet file: keys and hosts, no URLs."""
    from s2v_tasks.adapters import storage

    attempts = _attempts(ledger)
    storage.write_whole(file, attempts.write_parquet)
    typer.echo(f"{attempts.height} attempts in {file}")


@app.command()
def reconcile(
    invoice: Annotated[Path, typer.Argument(help="a CSV of the vendor's, with a column of request ids")],
    ledger: LedgerUrl = None,
    column: Annotated[str, typer.Option(help="that column")] = "request_id",
    debug: Debug = False,  # noqa: ARG001  (read by main)
) -> None:
    """Hold the vendor's list of billed request ids against the ledger; exit 1 if they disagree."""
    import polars as pl

    from s2v_tasks import books
    from s2v_tasks.adapters import sources

    if not invoice.is_file():
        raise InputError(f"no such file: {invoice}; name the vendor's CSV")
    with sources.reading(str(invoice)):
        invoiced = pl.read_csv(invoice, infer_schema=False)
    if column not in invoiced.columns:
        raise InputError(f"{invoice} has no column {column!r}; it has: {', '.join(invoiced.columns)}")
    found = books.reconcile(_attempts(ledger), invoiced[column])
    typer.echo(
        f"{found.matched} calls on both; {len(found.only_invoice)} only on the invoice, where the ledger has"
        f" {found.unknown} without an answer; {len(found.only_ledger)} only in the ledger"
    )
    if found.unexplained:
        typer.echo(f"{found.unexplained} charges are not this ledger's: {_some(found.only_invoice)}")
    if found.only_ledger:
        typer.echo(f"billed here and not on the invoice: {_some(found.only_ledger)}")
    raise typer.Exit(0 if found.agrees else 1)


def _attempts(url: str | None) -> "pl.DataFrame":
    """Every attempt of an existing ledger."""
    from s2v_tasks.settings import Environment

    url = url or Environment().ledger_url
    if url is None:
        raise UsageError("which ledger? name it with --ledger or in S2V_LEDGER_URL")
    return asyncio.run(_read(url))


async def _read(url: str) -> "pl.DataFrame":
    import polars as pl

    from s2v_tasks import books
    from s2v_tasks.adapters.clock import SystemClock
    from s2v_tasks.adapters.database import LedgerDatabase

    async with LedgerDatabase(url, SystemClock(), existing=True) as ledger:
        frames = [frame async for frame in ledger.attempts()]
    return pl.concat([pl.DataFrame(schema=books.SCHEMA), *frames])


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more

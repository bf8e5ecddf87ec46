"""``s2v rows``: the rows behind a number of a run."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result
from s2v_tasks.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from s2v_tasks.adapters.storage.file_io import StoragePath
    from s2v_tasks.adapters.storage.run_data import RunData

app = verb()

LIMIT: Final = 50
MAX_CELL: Final = 200
_MAX_KINDS: Final = 12
Values = list[str] | None


@app.command()
def rows(
    run_dir: Annotated[str, typer.Argument(help="Folder of a run: OUT/runs/<run_id>")],
    *,
    outcome: Annotated[Values, typer.Option(help="Rows with this outcome; may be repeated.")] = None,
    reason: Annotated[Values, typer.Option(help="... with this reason; may be repeated.")] = None,
    segment: Annotated[Values, typer.Option(help="... of this segment; may be repeated.")] = None,
    host: Annotated[Values, typer.Option(help="... of this host; may be repeated.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns, joined by commas; a column.field too.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Rows at most. [default: {LIMIT}; all with --to]".replace("[", r"\[")),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Write them to this .csv, .parquet, .ndjson or .jsonl file.")
    ] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Print or write the rows behind a number of a run.

    In the table, URLs have no query string: a signature is a secret. In a file they are whole.
    """
    from s2v_tasks.adapters.storage.file_io import parse_path, wrap_storage_errors
    from s2v_tasks.adapters.storage.run_data import read_run
    from s2v_tasks.domain.row_filter import RowFilter, columns_of

    wanted = RowFilter(outcome or (), reason or (), segment or (), [one.lower() for one in host or ()])
    target = None if to is None else parse_path(to)
    run = read_run(run_dir)
    wanted.check(run.segment_column)
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    found = wanted.apply(run.verdicts, run.url_column, run.segment_column)
    with wrap_storage_errors(run.folder.path):
        if target is None:
            chosen = columns_of(found, names or _default_columns(run))
            _print(run, chosen, limit or LIMIT)
        else:
            chosen = found if names is None else columns_of(found, names)
            _write(run, chosen if limit is None else chosen.head(limit), target)


def _default_columns(run: "RunData") -> list[str]:
    segment = [] if run.segment_column is None else [run.segment_column]
    return list(dict.fromkeys(["row", run.url_column, *segment, "outcome", "reason"]))


def _print(run: "RunData", chosen: "pl.LazyFrame", limit: int) -> None:
    from s2v_tasks.cli.tables import print_table
    from s2v_tasks.domain.shown_text import shown

    first = chosen.head(limit).collect(engine="streaming")
    found = [{name: _cell(run, name, value) for name, value in row.items()} for row in first.to_dicts()]
    result().details["rows"] = found
    if first.is_empty():
        result().completed("done", _what_there_is(run))
        typer.echo(_what_there_is(run))
        return
    cells = [
        [
            shown(value, is_url=name == run.url_column)[:MAX_CELL]
            for name, value in zip(first.columns, row, strict=True)
        ]
        for row in first.iter_rows()
    ]
    print_table(first.columns, cells, [n for n, dtype in first.schema.items() if not dtype.is_numeric()])
    total = first.height if first.height < limit else _count(chosen)
    result().completed("done", f"{first.height:,} of {total:,} rows")
    if first.height < total:
        typer.echo(f"{first.height:,} of {total:,} rows; --limit prints more, --to FILE writes all of them")
    if any("?..." in cell for row in cells for cell in row):
        typer.echo("what follows the path of a URL is cut off here; --to FILE writes whole URLs")


def _write(run: "RunData", chosen: "pl.LazyFrame", target: "StoragePath") -> None:
    from s2v_tasks.adapters.storage.row_files import write_rows

    out = run.folder.out
    if any(str(target).startswith(f"{out / name}/") for name in ("runs", "published")):
        raise UsageError(f"--to: {target} is among the files of runs; name a file outside of {out / 'runs'}")
    write_rows(chosen, target)
    total = _count(chosen)
    message = f"{total:,} rows in {target}" if total else f"{_what_there_is(run)}; 0 rows in {target}"
    result().details["file"] = str(target)
    result().completed("done", message)
    typer.echo(message)


def _cell(run: "RunData", name: str, value: object) -> object:
    """A cell as JSON has it: numbers and truth values as they are, all else as the table shows it."""
    from s2v_tasks.domain.shown_text import shown

    is_own = value is None or isinstance(value, bool | int | float)
    return value if is_own else shown(value, is_url=name == run.url_column)


def _count(rows: "pl.LazyFrame") -> int:
    import polars as pl

    count: int = rows.select(pl.len()).collect(engine="streaming").item()
    return count


def _what_there_is(run: "RunData") -> str:
    """No row matches: the outcomes and reasons that a run has, most frequent first."""
    import polars as pl

    counted = run.verdicts.group_by("outcome", "reason").agg(pl.len().alias("rows"))
    kinds = counted.sort("rows", "outcome", "reason", descending=[True, False, False]).collect(
        engine="streaming"
    )
    some = [
        f"{rows:,} {outcome} {reason or ''}".strip()
        for outcome, reason, rows in kinds.head(_MAX_KINDS).rows()
    ]
    more = f" and {kinds.height - _MAX_KINDS} more" if kinds.height > _MAX_KINDS else ""
    return f"no row matches; the run has {', '.join(some) or 'no rows'}{more}"

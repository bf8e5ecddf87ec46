"""``s2v compare``: two runs side by side."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2v_tasks.cli.options import Debug, verb
from s2v_tasks.cli.result import Json, result

if TYPE_CHECKING:
    import polars as pl

    from s2v_tasks.adapters.storage.run_data import RunData
    from s2v_tasks.domain.summary import Summary

app = verb()

MAX_ROWS: Final = 12
MAX_EXAMPLES: Final = 20
_ARROW: Final = "->"


@app.command()
def compare(
    run_a: Annotated[
        str, typer.Argument(help="Folder of the earlier run; with --out: id, current or previous")
    ],
    run_b: Annotated[
        str, typer.Argument(help="Folder of the later run; with --out: id, current or previous")
    ],
    *,
    out: Annotated[str | None, typer.Option(help="Output folder whose runs are named by their ids.")] = None,
    debug: Debug = False,  # noqa: ARG001  (read by main)
    as_json: Json = False,  # noqa: ARG001  (as well)
) -> None:
    """Compare two runs: funnel, cost, sources, and the verdicts that changed.

    Images are compared by their keys, without duplicates. Nothing is changed, and nothing is paid.
    """
    import polars as pl

    from s2v_tasks.adapters.storage.file_io import wrap_storage_errors
    from s2v_tasks.adapters.storage.run_data import find_run, read_run
    from s2v_tasks.domain.changes import changes, images_of
    from s2v_tasks.runtime.verdict_file import sources_of, summary_of

    runs = [read_run(name) if out is None else find_run(out, name) for name in (run_a, run_b)]
    a, b = runs
    with wrap_storage_errors(b.folder.path), wrap_storage_errors(a.folder.path):
        summaries = [summary_of(run.folder.verdicts, run.url_column, run.segment_column) for run in runs]
        sources = [sources_of(run.folder.verdicts, run.url_column, run.segment_column) for run in runs]
        changed = changes(*(images_of(run.verdicts, run.url_column, run.segment_column) for run in runs))
        verdicts, by_source = pl.collect_all([changed.verdicts, changed.sources], engine="streaming")
        urls = _urls(b, verdicts)
    _put_result(runs, summaries, verdicts, by_source)
    for label, run in zip("AB", runs, strict=True):
        typer.echo(
            f"{label}  {run.folder.path}  {run.manifest.started_at:%Y-%m-%d %H:%M} UTC, {run.manifest.status}"
        )
    _print_funnel(*summaries)
    _print_sources(sources, by_source)
    _print_verdicts(verdicts, urls)


def _put_result(
    runs: "list[RunData]", summaries: "list[Summary]", verdicts: "pl.DataFrame", by_source: "pl.DataFrame"
) -> None:
    """Every change of a verdict; of the sources, those that the terminal shows."""
    from s2v_tasks.domain.shown_text import shown

    changed = by_source.head(MAX_ROWS).to_dicts()
    result().details["comparison"] = {
        **{
            label: {
                "run_id": run.folder.run_id,
                "run_dir": str(run.folder.path),
                "status": run.manifest.status,
                "funnel": {step.label: step.rows for step in summary.steps},
                "run_cost_usd": summary.run_cost_usd,
                "dataset_cost_usd": summary.dataset_cost_usd,
            }
            for label, run, summary in zip("ab", runs, summaries, strict=True)
        },
        "verdicts": verdicts.to_dicts(),
        "sources": [{**one, "source": shown(one["source"])} for one in changed],
    }
    images = verdicts["images"].sum() if not verdicts.is_empty() else 0
    result().completed("done", f"{images:,} images with another verdict")


def _print_funnel(a: "Summary", b: "Summary") -> None:
    from s2v_tasks.cli.tables import print_table
    from s2v_tasks.domain.pass_rate import shown

    rows = [
        [one.label, f"{one.rows:,}", f"{other.rows:,}", _change(one.rows, other.rows)]
        for one, other in zip(a.steps, b.steps, strict=True)
        if one.is_shown or other.is_shown
    ]
    rows.append(["pass rate", *(shown(one.pass_rate, one.sampled) for one in (a, b)), ""])
    missed = [None if one.faces is None else one.faces.missed_share.upper for one in (a, b)]
    if missed != [None, None]:
        rows.append(["missed share, at most", *("-" if one is None else f"{one:.1%}" for one in missed), ""])
    for label, before, after in (
        ("USD of this run", a.run_cost_usd, b.run_cost_usd),
        ("USD of this dataset, over all runs", a.dataset_cost_usd, b.dataset_cost_usd),
        ("USD per approved image", a.cost_per_approved_usd, b.cost_per_approved_usd),
    ):
        difference = None if before is None or after is None else after - before
        usd = ["-" if value is None else f"{value:,.6f}" for value in (before, after)]
        rows.append([label, *usd, f"{difference:+,.6f}" if difference else ""])
    typer.echo()
    print_table(["", "A", "B", "B - A"], rows, texts=[""])


def _change(before: int, after: int) -> str:
    return f"{after - before:+,}" if after != before else ""


def _print_sources(tables: "list[pl.DataFrame]", changed: "pl.DataFrame") -> None:
    """The sources with most changes, of the first kind that both runs have."""
    from s2v_tasks.cli.tables import print_table
    from s2v_tasks.domain import pass_rate
    from s2v_tasks.domain.by_source import sample_of
    from s2v_tasks.domain.shown_text import shown

    if changed.is_empty():
        return
    kind = changed["kind"][0]
    before, after = ({row["source"]: row for row in one.filter(kind=kind).to_dicts()} for one in tables)
    of_kind = changed.filter(kind=kind)
    added, removed, other = (of_kind[name].sum() for name in ("added", "removed", "changed"))
    typer.echo(f"\n{removed:,} images only in A, {added:,} only in B, {other:,} with another verdict")
    rows = []
    for one in of_kind.head(MAX_ROWS).to_dicts():
        pair = [side.get(one["source"], {}) for side in (before, after)]
        passed = [f"{side.get('passed', 0):,}" for side in pair]
        rates = [pass_rate.shown(side["pass_rate"], sample_of(side)) if side else "-" for side in pair]
        wasted = [f"{side.get('wasted_usd', 0.0):,.4f}" for side in pair]
        pairs = [f" {_ARROW} ".join(cells) for cells in (passed, rates, wasted)]
        rows.append([shown(one["source"]), *pairs, *(f"{one[n]:,}" for n in ("added", "removed", "changed"))])
    typer.echo()
    print_table(
        [kind, "passed", "pass rate", "USD wasted", "added", "removed", "changed"], rows, texts=[kind]
    )
    if of_kind.height > MAX_ROWS:
        typer.echo(f"and {of_kind.height - MAX_ROWS:,} more, with fewer changes")


def _print_verdicts(verdicts: "pl.DataFrame", urls: dict[int, str]) -> None:
    from s2v_tasks.cli.tables import print_table

    typer.echo()
    if verdicts.is_empty():
        typer.echo("No verdict changed: every image that both runs have ended with the same one.")
        return
    counted = [
        [f"{images:,}", before, after]
        for before, after, images in verdicts.head(MAX_ROWS).select("before", "after", "images").rows()
    ]
    print_table(["images", "verdict in A", "verdict in B"], counted, texts=["verdict in A", "verdict in B"])
    if verdicts.height > MAX_ROWS:
        rest = verdicts.slice(MAX_ROWS)
        typer.echo(f"and {rest['images'].sum():,} images with {rest.height:,} other changes")
    examples = [
        [str(row), before, after, urls[row]]
        for before, after, rows in verdicts.select("before", "after", "rows").rows()
        for row in rows
        if row in urls
    ]
    typer.echo()
    header = ["row of B", "verdict in A", "verdict in B", "URL"]
    print_table(header, examples, texts=header[1:])


def _urls(run: "RunData", verdicts: "pl.DataFrame") -> dict[int, str]:
    """The URLs of the examples, by their rows, without query strings."""
    import polars as pl

    from s2v_tasks.domain.candidate_table import field_of
    from s2v_tasks.domain.shown_text import shown

    rows = verdicts["rows"].explode().drop_nulls().head(MAX_EXAMPLES)
    url, _ = field_of(run.url_column, run.verdicts.collect_schema())
    found = run.verdicts.filter(pl.col("row").is_in(rows.implode())).select("row", url.alias("url"))
    return {row: shown(url, is_url=True) for row, url in found.collect(engine="streaming").rows()}

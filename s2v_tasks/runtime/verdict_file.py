"""A run's ``verdicts.parquet``: written at the end, checked slice by slice, and summed up."""

import polars as pl

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.run_data import read_verdicts
from s2v_tasks.domain import by_source, candidate_table, gate_rules, passing_segments
from s2v_tasks.domain.audit import AuditedRows
from s2v_tasks.domain.ledger import BUDGET_EXHAUSTED, HOPELESS, RUN_STOPPED
from s2v_tasks.domain.summary import Summary, hosts_of, summarize, tallies_of
from s2v_tasks.runtime.run_context import RunContext

_IMAGES_AT_ONCE = 10 * candidate_table.PARTITION_ROWS
"""Each partition is another pass over the file; of an image no more than its key and its row is read."""


def check_unique(verdicts: pl.LazyFrame, rows: int) -> None:
    """Check that every row number is there once, and every image once outside the duplicates.

    Raises:
        DataIntegrityError: A row or an image is there twice.
    """
    for first in range(0, rows, candidate_table.PARTITION_ROWS):
        is_in_slice = pl.col("row").is_between(first, first + candidate_table.PARTITION_ROWS, closed="left")
        gate_rules.check_rows(verdicts.select("row").filter(is_in_slice).collect(engine="streaming"))
    images, count = gate_rules.own_images(verdicts), candidate_table.partition_count(rows, _IMAGES_AT_ONCE)
    for number in range(count):
        is_in_partition = candidate_table.partition_of(count) == number
        gate_rules.check_images(images.filter(is_in_partition).collect(engine="streaming"))


def summary_of(verdicts: StoragePath, url_column: str, segment_column: str | None = None) -> Summary:
    """The funnel of a file of verdicts; ``url_column`` holds the candidates' URLs."""
    with file_io.wrap_storage_errors(verdicts):
        rows = read_verdicts(verdicts)
        urls = pl.concat(
            [candidate_table.url_column_of(rows, url_column), rows.select("reason")], how="horizontal"
        )
        tallies, hosts = pl.collect_all(
            [tallies_of(rows, segment_column), hosts_of(urls)], engine="streaming"
        )
        return summarize(tallies, hosts)


def sources_of(verdicts: StoragePath, url_column: str, segment_column: str | None) -> pl.DataFrame:
    """The table by source of a file of verdicts, a frame of `s2v_tasks.domain.by_source.SCHEMA`."""
    with file_io.wrap_storage_errors(verdicts):
        sources = by_source.by_source(read_verdicts(verdicts), url_column, segment_column)
        return sources.collect(engine="streaming")


def write_verdict_files(run: RunContext) -> dict[str, int]:
    """Write a run's ``verdicts.parquet`` and, unless it stopped, its ``approved.parquet``.

    Returns:
        The number of rows with each outcome.

    Raises:
        DataIntegrityError: Rows or outcomes do not add up.
    """
    folder = run.folder
    with file_io.wrap_storage_errors(folder.path):
        if run.is_published:
            outcomes = file_io.parquet(folder.verdicts).group_by("outcome").len()
            return dict(outcomes.collect(engine="streaming").iter_rows())
        counts = run.partitions.write_verdicts(
            file_io.parquet(folder.rows),
            folder.verdicts,
            _unreached(run),
            several_results=run.state.several_results,
            rules=() if run.stopped else run.state.rules,
            audited=_audited(run),
        )
        if run.stopped is None:
            verdicts = file_io.parquet(folder.verdicts)
            keep_duplicates = run.parameters.advanced.keep_duplicates
            file_io.sink(
                passing_segments.approved(verdicts, keep_duplicates=keep_duplicates), folder.approved
            )
        return counts


def _unreached(run: RunContext) -> str:
    """Why images were not reached."""
    if run.stopped:
        return RUN_STOPPED
    return HOPELESS if run.state.is_hopeless else BUDGET_EXHAUSTED


def _audited(run: RunContext) -> AuditedRows | None:
    """Which rows are the sample's; None: the run has none."""
    seed, segment_column = run.parameters.sample_seed, run.parameters.source.segment_column
    if seed is None:
        return None
    return AuditedRows(seed, run.partitions.count, segment_column, run.state.hopeless)

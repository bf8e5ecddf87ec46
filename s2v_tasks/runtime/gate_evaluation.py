"""Evaluates a run's gate, and finds or writes the file of approved rows that it lets through."""

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime

import polars as pl
from prefect.logging import get_run_logger

from s2v_tasks.adapters import gx
from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.baseline import read_baseline
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.gate_reports import stamp_of
from s2v_tasks.adapters.storage.run_data import read_verdicts
from s2v_tasks.adapters.storage.run_folder import UNFINISHED, RunFolder
from s2v_tasks.domain import gate_rules, passing_segments
from s2v_tasks.domain.drift import Baseline
from s2v_tasks.errors import S2VError
from s2v_tasks.models import GateReport
from s2v_tasks.runtime.verdict_file import check_unique


def baseline_of(folder: RunFolder, limited: Mapping[str, float | None]) -> Baseline | None:
    """What the run is compared with; None if that can't be read and no threshold needs it."""
    try:
        return read_baseline(folder)
    except S2VError as error:
        if limited["max_pass_rate_drop"] is not None:
            raise
        get_run_logger().warning("not compared with earlier publications: %s", error.message)
        return None


def evaluate(
    folder: RunFolder,
    limited: Mapping[str, float | None],
    segment_column: str | None,
    median_pass_rate: float | None,
    checked_at: datetime,
    docs: StoragePath | None,
    *,
    only_passing: bool,
) -> GateReport:
    """The report of a run's gate.

    Args:
        folder: Of the run, with ``verdicts.parquet`` and ``manifest.json``.
        limited: The thresholds by the expectations' parameters.
        segment_column: Each of its values is checked too.
        median_pass_rate: Of `s2v_tasks.domain.gate_rules.facts_of`.
        checked_at: When.
        docs: Where Data Docs are written; None: nowhere.
        only_passing: Leave out the segments that don't pass on their own.
    """
    rows, segments = folder.read().rows, 0  # counted where they were read
    with file_io.wrap_storage_errors(folder.path):
        verdicts = read_verdicts(folder.verdicts)
        check_unique(verdicts, rows)
        frame = gate_rules.facts_of(verdicts, segment_column, median_pass_rate).collect(engine="streaming")
        left_out = passing_segments.left_out(gate_rules.read_facts(frame), limited) if only_passing else ()
        if left_out:
            names = [one.segment for one in left_out]
            published = passing_segments.published_rows(verdicts, segment_column, names)
            counted = gate_rules.facts_of(published, segment_column, median_pass_rate)
            frame = counted.collect(engine="streaming")
        if segment_column is not None:
            segments = verdicts.select(pl.col(segment_column).n_unique()).collect(engine="streaming").item()
        given = gate_rules.parameters(limited, rows=rows, segments=segments, left_out=left_out)
        with nullcontext() if docs is None else file_io.staged_dir(docs) as local:
            expectations = gx.run_suites(verdicts, frame, given, local)
    facts = gate_rules.read_facts(frame)
    return gate_rules.report(expectations, facts, checked_at, segment_column, left_out)


def approved_file(folder: RunFolder, report: GateReport) -> StoragePath:
    """The file of the approved rows of the segments that a report lets through.

    That is ``approved.parquet`` if its rows are those; if not, an unfinished run writes it again, and of a
    finished or published one it stays as it is: ``approved-<utc>.parquet`` is written beside it.
    """
    manifest = folder.read()
    if report.segment_column is None and manifest.parameters.source.segment_column is None:
        return folder.approved
    with file_io.wrap_storage_errors(folder.path):
        keep_duplicates = manifest.parameters.advanced.keep_duplicates
        wanted = passing_segments.published_rows(
            passing_segments.approved(read_verdicts(folder.verdicts), keep_duplicates=keep_duplicates),
            report.segment_column,
            [one.segment for one in report.left_out],
        )
        if _rows(wanted) == _rows(read_verdicts(folder.approved)):
            return folder.approved
        current = pointer.read(folder.out)
        is_published = current is not None and current.run_id == folder.run_id
        is_own = manifest.status in UNFINISHED and not is_published
        file = folder.approved if is_own else folder.path / f"approved-{stamp_of(report.checked_at)}.parquet"
        file_io.sink(wanted, file)
    return file


def _rows(approved: pl.LazyFrame) -> tuple[object, ...]:
    """What tells two selections of the same rows apart: how many, and a sum over hashes of their numbers."""
    counted = approved.select(pl.len(), pl.col("row").hash().sum().alias("sum"))
    return counted.collect(engine="streaming").row(0)

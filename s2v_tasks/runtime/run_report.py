"""A run's ``report.html``: made of its folder alone, written whole, and written again at any time."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from s2v_tasks.adapters import report_html
from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.adapters.storage.baseline import read_baseline
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.run_data import RunData, publication_before, read_run
from s2v_tasks.adapters.storage.run_folder import Manifest, RunFolder
from s2v_tasks.domain import drift, report_frames
from s2v_tasks.domain.by_source import by_source
from s2v_tasks.domain.changes import changes, images_of
from s2v_tasks.domain.gate_rules import facts_of, read_facts
from s2v_tasks.domain.passing_segments import published_rows
from s2v_tasks.domain.report import Report, RunFacts, report_of
from s2v_tasks.domain.report_frames import ReportFrames
from s2v_tasks.domain.report_gate import gate_view, left_out_of
from s2v_tasks.domain.summary import faces_of, tallies_of
from s2v_tasks.settings import Environment
from s2v_tasks.settings.fields import limits


def write_report(run_dir: StoragePath | str) -> StoragePath:
    """Write the report of a run, finished or stopped, from what is in its folder; nothing is fetched.

    Returns:
        Its path.

    Raises:
        UsageError: It is no run's folder, or the run has no verdicts yet.
        StorageUnavailable: The object store can't be used.
    """
    run = read_run(run_dir)
    page = report_html.html_of(read_report(run), datetime.now(UTC)).encode()

    def write(temporary: Path) -> None:
        temporary.write_bytes(page)

    file_io.write_whole(run.folder.report, write)
    return run.folder.report


def link_to(folder: RunFolder) -> str:
    """Where people open a run's report: a URL if the environment says where OUT is served, else its path.

    Empty if there is none.
    """
    path = folder.report
    if not path.is_file():
        return ""
    prefix = (Environment().report_url_prefix or "").partition("?")[0].rstrip("/")
    is_url = prefix.startswith(("http://", "https://")) and not re.search(r"[\s()<>\[\]]", prefix)
    return f"{prefix}/runs/{folder.run_id}/{path.name}" if is_url else str(path)


def read_report(run: RunData) -> Report:
    """The report's record."""
    manifest = run.manifest
    before = publication_before(run.folder.out, manifest.order)
    baseline = read_baseline(run.folder)
    with file_io.wrap_storage_errors(run.folder.path):
        frames = _frames(run, before, baseline.pass_rate)
    published = None if frames.published is None else read_facts(frames.published)
    gate = gate_view(read_facts(frames.facts), _limits(run), run.gate, published)
    compared = drift.compare(baseline, (gate.facts[0], *gate.segments))
    return report_of(_run_facts(run, before), frames, gate, compared)


def _frames(run: RunData, before: RunData | None, median_pass_rate: float | None) -> ReportFrames:
    """One pass over the verdicts for each frame; the rows of the tiles are read only for them."""
    verdicts, url, segment = run.verdicts, run.url_column, run.segment_column
    outcomes, responses, facts, sources, tallies = pl.collect_all(
        [
            report_frames.outcomes(verdicts),
            report_frames.responses(verdicts),
            facts_of(verdicts, segment, median_pass_rate),
            by_source(verdicts, url, segment),
            tallies_of(verdicts, segment),
        ],
        engine="streaming",
    )
    changed = changed_sources = tiles = published = None
    if left_out := left_out_of(run.gate):
        rows = published_rows(verdicts, segment, left_out)
        published = facts_of(rows, segment, median_pass_rate).collect(engine="streaming")
    if before is not None:
        found = changes(
            images_of(before.verdicts, before.url_column, before.segment_column),
            images_of(verdicts, url, segment),
        )
        changed, changed_sources = pl.collect_all([found.verdicts, found.sources], engine="streaming")
    if run.folder.thumbnails.is_file():
        thumbnails = file_io.parquet(run.folder.thumbnails).collect()
        joined = report_frames.tiles_of(thumbnails, verdicts, segment)
        tiles = joined.sort("sheet", "row").collect(engine="streaming")
    return ReportFrames(
        outcomes, responses, facts, sources, changed, changed_sources, tiles, published, faces_of(tallies)
    )


def _limits(run: RunData) -> Mapping[str, float | None]:
    """The thresholds of the gate's last evaluation; reports of earlier versions do not have them."""
    parameters = run.manifest.parameters
    own = limits(parameters.thresholds, parameters.advanced)
    evaluated: dict[str, float | None] = (run.gate or {}).get("thresholds") or {}
    return own | evaluated


def _run_facts(run: RunData, before: RunData | None) -> RunFacts:
    manifest = run.manifest
    current = pointer.read(run.folder.out)
    is_current = current is not None and current.run_id == manifest.run_id
    return RunFacts(
        run_id=manifest.run_id,
        run_dir=str(run.folder.path),
        status=manifest.status,
        message=manifest.message or "",
        parameters=manifest.parameters,
        versions=manifest.versions,
        files=manifest.files,
        details=tuple(_details(manifest)),
        approved=str(run.folder.approved) if current is None or not is_current else current.path,
        published=current.rows if current is not None and is_current else None,
        was_published=manifest.publication is not None and not is_current,
        previous=None if before is None else before.manifest.run_id,
    )


def _details(manifest: Manifest) -> list[tuple[str, str]]:
    found = [
        ("started", f"{manifest.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("number", str(manifest.number)),
        ("service", manifest.service),
        ("ledger", manifest.ledger),
        ("identity", manifest.identity),
    ]
    if manifest.finished_at is not None:
        found.insert(1, ("finished", f"{manifest.finished_at:%Y-%m-%d %H:%M:%S} UTC"))
    return found

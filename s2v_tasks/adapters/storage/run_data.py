"""Run data: what a run's folder, or a publication, holds, for users of data frames."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from s2v_tasks.adapters.storage import file_io, history, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.gate_reports import read_report
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.adapters.storage.run_folder import (
    Manifest,
    RunFolder,
    check_finished,
    manifests,
    open_run_folder,
)
from s2v_tasks.domain import faces, format_1
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import UsageError

_OF_CALLS = (
    "row", "image_key", "outcome", "reason", "attempts", "request_id", "http_status", "code", "billing",
    "run_cost_usd", "checked_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunData:
    """A run's results; its frames are read when they are collected. Amounts in USD.

    ``verdicts``: a row for every input row, the input's columns and those of
    `s2v_tasks.domain.verdict_table.SCHEMA`. ``gate``: the report as ``gate.json`` holds it, the newest one of
    the folder or that of the publication; None if the run stopped before its gate. ``publication``: what the
    pointer says, for `published` only. Folders of earlier formats are read by today's names.
    """

    folder: RunFolder
    manifest: Manifest = field(repr=False)
    verdicts: pl.LazyFrame = field(repr=False)
    gate: dict[str, Any] | None = field(repr=False)
    publication: Publication | None = field(default=None, repr=False)

    @property
    def url_column(self) -> str:
        """The input's column with the URLs; may be a field of a struct, ``column.field``."""
        return self.manifest.parameters.source.url_column

    @property
    def segment_column(self) -> str | None:
        """The input's column with the segments; None without one."""
        return self.manifest.parameters.source.segment_column

    @property
    def approved(self) -> pl.LazyFrame:
        """The approved rows, as published: those of the publication's file, else of ``approved.parquet``."""
        if self.publication is None:
            return read_verdicts(self.folder.approved)
        return read_verdicts(self.folder.path / self.publication.path.rpartition("/")[2])

    @property
    def attempts(self) -> pl.LazyFrame:
        """The images that this run sent: how often, the response that decided, and what that cost.

        The folder does not hold each attempt: the ledger does (``s2v ledger export``, column ``run_id``).
        """
        return self.verdicts.filter(pl.col("attempts") > 0).select(*_OF_CALLS)


def read_run(run_dir: StoragePath | str) -> RunData:
    """The results of a run, finished or stopped.

    Args:
        run_dir: ``OUT/runs/<run_id>``, a path or ``s3://...``.

    Raises:
        UsageError: It is no run's folder, a newer program wrote it, or the run has no verdicts yet.
        StorageUnavailable: The object store can't be read.
    """
    folder = open_run_folder(run_dir)
    return _read(folder, None)


def published(out: StoragePath | str) -> RunData:
    """The results of the run that is published in an output folder.

    Args:
        out: The output folder, a path or ``s3://...``.

    Raises:
        UsageError: Nothing is published there, or what is can't be read.
        StorageUnavailable: The object store can't be read.
    """
    path = file_io.parse_path(out)
    publication = pointer.read(path)
    if publication is None:
        raise UsageError(f"nothing is published in {path}; name the folder of a run, OUT/runs/<run_id>")
    return _read(RunFolder(path, publication.run_id), publication)


def read_verdicts(path: StoragePath) -> pl.LazyFrame:
    """The rows of a run's ``verdicts.parquet`` or ``approved.parquet`` of any format, not read yet.

    Returns:
        The input's columns and those of `s2v_tasks.domain.verdict_table.SCHEMA`.

    Raises:
        UsageError: An earlier version wrote it, and a column of its input has a name that this one uses.
    """
    rows = file_io.parquet(path)
    columns = rows.collect_schema().names()
    if not format_1.is_verdicts(columns):
        return _with_later_columns(rows, columns)
    if clashing := format_1.clashing(columns):
        raise UsageError(
            f"{path} was written by an earlier version of s2v-tasks, and its input has the column"
            f" {clashing[0]!r}, which this version adds itself; read it with the version that wrote it"
        )
    return _with_later_columns(format_1.verdicts(rows), columns)


def _with_later_columns(rows: pl.LazyFrame, columns: Collection[str]) -> pl.LazyFrame:
    """The rows, whose own columns are ``columns``, with those that an earlier program did not write, null."""
    later = [name for name in (*faces.COLUMNS, "audited", "audited_in_run") if name not in columns]
    return rows.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in later)


def find_run(out: StoragePath | str, name: str) -> RunData:
    """The results of a run of an output folder.

    Args:
        out: The output folder, a path or ``s3://...``.
        name: The id of a run; ``current`` for what is published, ``previous`` for what was published before.

    Raises:
        UsageError: There is none, or it can't be read.
        StorageUnavailable: The object store can't be read.
    """
    path = file_io.parse_path(out)
    if name == "current":
        return published(path)
    if name != "previous":
        return read_run(RunFolder(path, name).path)
    current = pointer.read(path)
    if current is None:
        return published(path)
    before = publication_before(path, current.order)
    if before is None:
        raise UsageError(f"{path} has no publication before run {current.run_id}; name a run by its id")
    return before


def publication_before(out: StoragePath, order: tuple[int, str]) -> RunData | None:
    """The run that published last before a run of that number and start; None: none has.

    Raises:
        UsageError: It can't be read.
        StorageUnavailable: The object store can't be read.
    """
    past = history.read(out, pointer.read(out))
    live = [one.publication for one in past if not one.withdrawn]
    before = [(one.order, one.run_id) for one in live if one.order < order]
    if not before:  # published before there was a history
        withdrawn = {one.publication.run_id for one in past if one.withdrawn}
        older = [one for one in manifests(out) if _has_published(one) and one.run_id not in withdrawn]
        orders = [(one.order, one.run_id) for one in older]
        before = [one for one in orders if one[0] < order]
    return read_run(RunFolder(out, max(before)[1]).path) if before else None


def _has_published(manifest: Manifest) -> bool:
    """A manifest of format 1 does not say whether a later run was published already."""
    return manifest.publication is not None or (manifest.format == 1 and manifest.status == "published")


def _read(folder: RunFolder, publication: Publication | None) -> RunData:
    manifest = folder.read()
    if not folder.verdicts.is_file():
        check_finished(manifest)
        raise UsageError(f"{folder.verdicts} is missing; name the folder of another run")
    with file_io.wrap_storage_errors(folder.path):
        try:
            verdicts = read_verdicts(folder.verdicts)
        except pl.exceptions.PolarsError as error:
            if not isinstance(folder.path, ObjectPath):
                raise UsageError(f"{folder.verdicts} can't be read ({type(error).__name__})") from None
            raise
    report = read_report(folder, None if publication is None else publication.gate.checked_at)
    return RunData(folder, manifest, verdicts, report, publication)

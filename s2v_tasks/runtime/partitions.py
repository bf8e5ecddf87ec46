"""The rows of a run in partitions that fit in memory, and the results of the stages, by partition, on disk.

A row's partition depends on its image's key, so all rows of an image are in one partition, which is worked
through on its own. At the end outcomes go back into input order. A partition holds about
`s2v_tasks.domain.candidate_table.PARTITION_ROWS` rows; most inputs are one partition.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.spill import SpillStore
from s2v_tasks.domain import alternate_urls, candidate_table, conservation, faces, verdict_table
from s2v_tasks.domain.audit import AuditedRows
from s2v_tasks.models import Screened

_SEGMENTS: Final[dict[str, pl.DataType]] = {
    "row": pl.Int64(),
    "segment": pl.String(),
}


class PartitionStore:
    """The rows of one run and their results, below a scratch folder; `build` comes first.

    ``rows`` counts input rows, ``images`` unique images with a valid URL, ``count`` partitions.
    """

    def __init__(self, folder: Path, partition_rows: int = candidate_table.PARTITION_ROWS) -> None:
        self.folder = folder
        self.rows = 0
        self.images = 0
        self.count = 0
        self._partition_rows = partition_rows
        self._keyed = SpillStore(folder / "placed", candidate_table.KEYED_SCHEMA)
        self._several = SpillStore(folder / "several", alternate_urls.SEVERAL_SCHEMA)
        self._segments = SpillStore(folder / "segments", _SEGMENTS)
        self._screened = SpillStore(folder / "screened", verdict_table.SCREENED_SCHEMA)
        self._faces = SpillStore(folder / "faces", faces.SCHEMA)
        self._skipped = SpillStore(folder / "skipped", alternate_urls.INDEX_SCHEMA)
        self._index = folder / "parts.json"
        self._hopeless = folder / "hopeless.json"
        self._rules_off = folder / "rules_off.json"
        self._checked = SpillStore(folder / "checked", verdict_table.CHECKED_SCHEMA)
        self._charged = SpillStore(folder / "charged", verdict_table.CHECKED_SCHEMA)
        self._canonical = SpillStore(folder / "canonical", verdict_table.CANONICAL_SCHEMA)
        self._resolved = SpillStore(folder / "resolved", verdict_table.RESOLVED_SCHEMA)
        self._ordered = SpillStore(folder / "ordered", verdict_table.SCHEMA)

    # -- rows and images -----------------------------------------------------------------------------------

    def build(
        self,
        rows: pl.LazyFrame,
        url_column: str,
        *,
        should_continue: Callable[[], bool] = lambda: True,
        known: Callable[[list[str]], Collection[str]] = lambda _: (),
        segment: pl.Expr | None = None,
    ) -> None:
        """Split the rows into partitions; if an earlier process of the run did, reuse them.

        Args:
            rows: The rows of a parquet file: they are read in slices.
            url_column: The column with the URLs.
            should_continue: Called before each slice; if it returns False, no partition is kept.
            known: See `s2v_tasks.domain.candidate_table.with_former_keys`.
            segment: Of each row, as `s2v_tasks.domain.gate_rules.segment_of` gives it; None: the run has no
                sample, or no segments.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # URLs may be signed
        if not self._index.exists() and not self._split(rows, url_column, should_continue, known, segment):
            return
        index = json.loads(self._index.read_bytes())
        self.rows, self.images, self.count = index["rows"], index["images"], index["parts"]
        for decided in (self._screened, self._faces, self._skipped):
            decided.open(truncate=False)
            decided.truncate_torn_tail()
        for results in (self._checked, self._charged, self._canonical):  # the ledger has them all, for free
            results.open(truncate=True)

    def _split(
        self,
        rows: pl.LazyFrame,
        url_column: str,
        should_continue: Callable[[], bool],
        known: Callable[[list[str]], Collection[str]],
        segment: pl.Expr | None,
    ) -> bool:
        """Write all partitions, and then the index, durably; False if ``should_continue`` ended it."""
        total = rows.select(pl.len()).collect(engine="streaming").item()
        count = candidate_table.partition_count(total, self._partition_rows)
        of_rows = (self._keyed, self._several, self._segments)
        for rows_of_images in of_rows:
            rows_of_images.open(truncate=True)
        for first in range(0, total, self._partition_rows):
            if not should_continue():
                return False
            rows_slice = rows.slice(first, self._partition_rows)
            keyed = candidate_table.assign_keys(rows_slice, url_column, first).collect()
            keyed = candidate_table.with_former_keys(keyed, known)
            self._keyed.append_partitioned(keyed, candidate_table.partition_of(count))
            if segment is not None:
                named = keyed.with_columns(rows_slice.select(segment.alias("segment")).collect().to_series())
                self._segments.append_partitioned(named, candidate_table.partition_of(count))
        images = sum(self._count_images(number) for number in range(count))
        for rows_of_images in of_rows:
            rows_of_images.sync()
        file_io.write_json(self._index, {"rows": total, "images": images, "parts": count})
        return True

    def _count_images(self, partition: int) -> int:
        """Count the images of a partition, and keep the rows of those with several URLs."""
        keyed = self._keyed.read(partition)
        valid = keyed.select("url", "image_key").drop_nulls("image_key")
        images = valid["image_key"].n_unique()
        if valid["url"].hash().n_unique() > images:
            marked = candidate_table.mark_duplicates(keyed.lazy())
            self._several.append(partition, alternate_urls.several_urls(marked).collect())
        return images

    def marked_rows(self, partition: int) -> pl.DataFrame:
        """The rows of a partition, of `s2v_tasks.domain.candidate_table.SCHEMA`."""
        return candidate_table.mark_duplicates(self._keyed.read(partition).lazy()).collect()

    def unique_images(self, partition: int) -> pl.DataFrame:
        """The images of a partition, each once, with what is left of their URLs.

        Columns of `s2v_tasks.domain.alternate_urls.with_urls`, and ``url_index``, that of ``url``.
        """
        images = candidate_table.unique_images(self.marked_rows(partition).lazy())
        images = alternate_urls.with_urls(images, _if_any(self._several.read(partition)))
        images = images.with_columns(pl.lit(0, pl.Int64).alias("url_index"))
        return alternate_urls.skipped_to(images.collect(), self._skipped_urls(partition))

    def segments(self, partition: int) -> pl.DataFrame:
        """The segment of each row of a partition, columns ``row`` and ``segment``; empty without segments."""
        return self._segments.read(partition)

    # -- results -------------------------------------------------------------------------------------------

    def screened(self, partition: int) -> pl.DataFrame:
        """The results of the screen for a partition, also those of earlier processes of the run."""
        return self._screened.read(partition)

    def screened_images(self, keys: pl.Series) -> list[Screened]:
        """The results of earlier processes of the run for some images, if any; also before `build`."""
        partitions = (self._screened.read(number) for number in self._screened.partitions())
        return [
            screened
            for partition in partitions
            for screened in verdict_table.screened_records(partition.filter(pl.col("image_key").is_in(keys)))
        ]

    def add_screened(self, results: pl.DataFrame) -> None:
        """Add results of the screen, durably: later processes of the run reuse them."""
        self._screened.append_partitioned(results, self._of_key(), durable=True)

    def faces(self, partition: int) -> pl.DataFrame:
        """The results of the face check for a partition, also those of earlier processes of the run."""
        return self._faces.read(partition)

    def add_faces(self, results: pl.DataFrame) -> None:
        """Add results of the face check, durably: later processes of the run reuse them."""
        self._faces.append_partitioned(results, self._of_key(), durable=True)

    def skip_urls(self, images: pl.DataFrame) -> None:
        """Add images whose URLs the vendor could not fetch, durably: before the next URL is sent.

        ``images`` is of `s2v_tasks.domain.alternate_urls.INDEX_SCHEMA`.
        """
        self._skipped.append_partitioned(images, self._of_key(), durable=True)

    def _skipped_urls(self, partition: int) -> pl.DataFrame:
        return self._skipped.read(partition).group_by("image_key").max()

    def add_checked(self, results: pl.DataFrame) -> None:
        """Add results of the paid check, new or from the ledger."""
        self._checked.append_partitioned(results, self._of_key())

    def checked(self, partition: int) -> pl.DataFrame:
        """The results of the paid check for a partition, so far: the latest of each image."""
        return verdict_table.latest_results(self._checked.read(partition))

    def add_charged(self, results: pl.DataFrame) -> None:
        """Add what was charged before for images that never got a response."""
        self._charged.append_partitioned(results, self._of_key())

    def add_canonical(self, images: pl.DataFrame) -> None:
        """Add images that are checked under another's key, of `verdict_table.CANONICAL_SCHEMA`."""
        self._canonical.append_partitioned(images, self._of_key())

    def hopeless(self) -> set[str | None]:
        """The segments of which no more images are checked, None for the run; also of earlier processes."""
        return set(json.loads(self._hopeless.read_bytes())) if self._hopeless.exists() else set()

    def set_hopeless(self, segments: Collection[str | None]) -> None:
        """Store them, durably: later processes of the run check none of their images either."""
        file_io.write_json(self._hopeless, list(segments))

    def rules_off(self) -> set[str]:
        """The rules of the face check that were switched off, also by earlier processes."""
        return set(json.loads(self._rules_off.read_bytes())) if self._rules_off.exists() else set()

    def set_rules_off(self, rules: Collection[str]) -> None:
        """Store them, durably: no later process of the run drops an image by them."""
        file_io.write_json(self._rules_off, sorted(rules))

    def remove(self) -> None:
        """Remove the scratch folder at the end of the run."""
        file_io.remove_below(self.folder)

    def _of_key(self) -> pl.Expr:
        return candidate_table.partition_of_key(self.count)

    # -- the end -------------------------------------------------------------------------------------------

    def write_verdicts(
        self,
        rows: pl.LazyFrame,
        verdicts: StoragePath,
        unreached: str,
        *,
        several_results: bool = False,
        rules: Collection[str] = (),
        audited: AuditedRows | None = None,
    ) -> dict[str, int]:
        """Write the rows with their outcomes, in input order, and count the outcomes.

        Args:
            rows: What `build` split.
            verdicts: The file to write.
            unreached: The reason of images that no stage has reached.
            several_results: Several URLs were sent for an image, so it may have several results.
            rules: Those of the face check by which images are dropped.
            audited: Marks the rows of the sample; None: the run has none.

        Raises:
            DataIntegrityError: Rows or outcomes do not add up.
        """
        self._ordered.open(truncate=True)
        for number, resolved in enumerate(self._resolved_rows()):
            checked, charged = self._checked.read(number), self._charged.read(number)
            if several_results:
                checked = verdict_table.latest_results(checked)
                charged = verdict_table.latest_results(charged)
            outcomes = verdict_table.outcomes(resolved, checked, charged, unreached=unreached, rules=rules)
            self._ordered.append_partitioned(outcomes, pl.col("row") // self._partition_rows)
        if audited is not None:
            for table in self._in_order(rows.select(audited.columns), Counter()):
                audited.read(table)
        counts: Counter[str] = Counter()
        tables = self._in_order(rows, counts)
        file_io.sink_frames(tables if audited is None else map(audited.marked, tables), verdicts)
        self._ordered.open(truncate=True)
        return dict(counts)

    def _in_order(self, rows: pl.LazyFrame, counts: Counter[str]) -> Iterator[pl.DataFrame]:
        """The rows in input order with their outcomes, slice by slice; ``counts`` grows by these."""
        for number, first in enumerate(range(0, max(self.rows, 1), self._partition_rows)):
            outcomes = self._ordered.read(number).sort("row")
            expected = min(self._partition_rows, self.rows - first)
            counts.update(conservation.check_conserved(outcomes, expected, first))
            columns = rows.slice(first, self._partition_rows).collect()
            yield verdict_table.assemble(columns.lazy(), outcomes.lazy()).collect()

    def _resolved_rows(self) -> Iterator[pl.DataFrame]:
        """The rows with the results of the screen; all rows of one canonical image are in one frame."""
        by_image = (
            verdict_table.attach_screened(
                self._keyed.read(number).lazy(),
                self._screened.read(number).lazy(),
                self._canonical.read(number).lazy(),
                _if_any(self._several.read(number)),
                _if_any(self._skipped_urls(number)),
                self._faces.read(number).lazy(),
            ).collect()
            for number in range(self.count)
        )
        if not self._canonical.partitions():
            yield from by_image
            return
        self._resolved.open(truncate=True)
        for rows in by_image:
            self._resolved.append_partitioned(rows, candidate_table.partition_of(self.count, "canonical_key"))
        for number in range(self.count):
            yield self._resolved.read(number)
        self._resolved.open(truncate=True)


def _if_any(frame: pl.DataFrame) -> pl.LazyFrame | None:
    return None if frame.is_empty() else frame.lazy()

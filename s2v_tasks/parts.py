"""A run's rows in parts that fit in memory, and what becomes of them, so that their number does not matter.

Rows go into a part by their picture's key: what repeats a picture is in the same part, so a part is worked
through on its own. What the stages tell is kept on disk by part; at the end outcomes go back into the order
of the input. A part holds about `s2v_tasks.candidates.PART_ROWS` rows; most inputs are one part.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from s2v_tasks import candidates as stage1
from s2v_tasks import gate as stage6
from s2v_tasks import verdicts as stage5
from s2v_tasks.adapters import storage
from s2v_tasks.adapters.scratch import Scratch
from s2v_tasks.adapters.storage import Place
from s2v_tasks.models import Screened
from s2v_tasks.summary import Summary, summarise, tallied


class Parts:
    """The rows of one run below a scratch folder. ``cut`` comes first.

    ``rows`` and ``pictures`` count input rows and unique pictures with a good address.
    """

    def __init__(self, folder: Path, part_rows: int = stage1.PART_ROWS) -> None:
        self.folder = folder
        self._part_rows = part_rows
        self.rows = 0
        self.pictures = 0
        self.count = 0
        self._placed = Scratch(folder / "placed", stage1.PLACED_SCHEMA)
        self._screened = Scratch(folder / "screened", stage5.SCREENED_SCHEMA)
        self._judged = Scratch(folder / "judged", stage5.JUDGED_SCHEMA)
        self._charged = Scratch(folder / "charged", stage5.JUDGED_SCHEMA)
        self._same = Scratch(folder / "same", stage5.SAME_SCHEMA)
        self._looks = Scratch(folder / "looked", stage5.LOOKED_SCHEMA)
        self._ordered = Scratch(folder / "ordered", stage5.SCHEMA)

    def cut(self, rows: pl.LazyFrame, url_column: str, *, go_on: Callable[[], bool] = lambda: True) -> None:
        """Cut the rows into parts; or, if a former life has done so, take up what it left.

        Durable. ``rows`` are read in slices, so they must be parquet. ``go_on`` is asked now and then; if it
        says no, nothing is cut.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # addresses may be signed
        index = self.folder / "parts.json"
        if not index.exists():
            total = rows.select(pl.len()).collect(engine="streaming").item()
            count = stage1.parts_for(total, self._part_rows)
            self._placed.begin(anew=True)
            for first in range(0, total, self._part_rows):
                if not go_on():
                    return
                some = rows.slice(first, self._part_rows)
                batch = stage1.placed(some, url_column, first).collect()
                self._placed.spread(batch, stage1.part_of(count))
            pictures = sum(self.unique(part).height for part in range(count))
            self._placed.sync()
            storage.write_json(index, {"rows": total, "pictures": pictures, "parts": count})
        said = json.loads(index.read_bytes())
        self.rows, self.pictures, self.count = said["rows"], said["pictures"], said["parts"]
        self._screened.begin(anew=False)
        self._screened.mend()
        for told in (self._judged, self._charged, self._same):  # the ledger tells it again, for free
            told.begin(anew=True)

    def identified(self, part: int) -> pl.DataFrame:
        """The rows of a part, of `s2v_tasks.candidates.SCHEMA`."""
        return stage1.compared(self._placed.read(part).lazy()).collect()

    def unique(self, part: int) -> pl.DataFrame:
        """The pictures of a part, each once: columns ``image_key``, ``url``, ``row``."""
        return stage1.fresh(self.identified(part).lazy()).collect()

    def screened(self, part: int) -> pl.DataFrame:
        """What the screen told about a part, in former lives of the run too."""
        return self._screened.read(part)

    def looked_at(self, keys: pl.Series) -> list[Screened]:
        """What the screen told about some pictures in former lives, if it has; also before ``cut``."""
        told = (self._screened.read(part) for part in self._screened.parts())
        return [
            seen
            for some in told
            for seen in stage5.screened_records(some.filter(pl.col("image_key").is_in(keys)))
        ]

    def keep_screened(self, told: pl.DataFrame) -> None:
        """Keep what the screen told, for the lives to come too."""
        self._screened.spread(told, stage1.part_of_key(self.count), durable=True)

    def keep_judged(self, told: pl.DataFrame) -> None:
        """Keep what the paid stage or the ledger told."""
        self._judged.spread(told, stage1.part_of_key(self.count))

    def keep_charged(self, told: pl.DataFrame) -> None:
        """Keep what was charged before for pictures that were never answered."""
        self._charged.spread(told, stage1.part_of_key(self.count))

    def keep_same(self, told: pl.DataFrame) -> None:
        """Keep which pictures are asked as others, for they have the same bytes."""
        self._same.spread(told, stage1.part_of_key(self.count))

    def remove(self) -> None:
        """Remove the scratch folder: the run is over."""
        storage.remove_below(self.folder)

    def write(
        self, rows: pl.LazyFrame, verdicts: Place, unreached: str, *, same_content: bool = False
    ) -> dict[str, int]:
        """Write the rows with their outcomes, in input order, and count the outcomes.

        ``rows`` is what was cut; ``unreached`` the reason of what no stage has reached. Only with
        ``same_content`` may a picture be told of more than once: by its copies.

        Raises:
            ConservationError: Rows or outcomes do not add up.
        """
        self._ordered.begin(anew=True)
        for part, looked in enumerate(self._looked()):
            judged, charged = self._judged.read(part), self._charged.read(part)
            if same_content:
                judged, charged = stage5.last_told(judged), stage5.last_told(charged)
            outcomes = stage5.outcomes(
                looked.lazy(), judged.lazy(), charged.lazy(), unreached=unreached
            ).collect()
            self._ordered.spread(outcomes, pl.col("row") // self._part_rows)
        counts: Counter[str] = Counter()
        pieces = []
        for number, first in enumerate(range(0, self.rows, self._part_rows)):
            piece = self._ordered.read(number).sort("row")
            counts.update(stage5.conserved(piece, min(self._part_rows, self.rows - first), first))
            pieces.append(self._ordered.path(number).with_suffix(".parquet"))
            its_rows = rows.slice(first, self._part_rows).collect()
            stage5.assemble(its_rows.lazy(), piece.lazy()).collect().write_parquet(
                pieces[-1], row_group_size=20_000
            )
            self._ordered.path(number).unlink()
        storage.sink(storage.parquet(*pieces), verdicts)
        self._ordered.begin(anew=True)
        return dict(counts)

    def _looked(self) -> Iterator[pl.DataFrame]:
        """The rows of each part with what the screen told; what is asked as one picture is in one part."""
        by_address = (
            stage5.looked(
                self._placed.read(part).lazy(),
                self._screened.read(part).lazy(),
                self._same.read(part).lazy(),
            ).collect()
            for part in range(self.count)
        )
        if not self._same.parts():
            yield from by_address
            return
        self._looks.begin(anew=True)
        for rows in by_address:
            self._looks.spread(rows, stage1.part_of(self.count, "asked_key"))
        for part in range(self.count):
            yield self._looks.read(part)
        self._looks.begin(anew=True)


def check_unique(verdicts: pl.LazyFrame, rows: int) -> None:
    """Every row number once, and every picture once outside the duplicates.

    Raises:
        ConservationError: Some row or picture is there twice.
    """
    for first in range(0, rows, stage1.PART_ROWS):
        some = pl.col("row").is_between(first, first + stage1.PART_ROWS, closed="left")
        stage6.check_rows(verdicts.select("row").filter(some).collect(engine="streaming"))
    # Each part is another pass over the file; of a picture there is no more than its key and its row.
    pictures, parts = stage6.own_pictures(verdicts), stage1.parts_for(rows, 10 * stage1.PART_ROWS)
    for part in range(parts):
        some = stage1.part_of(parts) == part
        stage6.check_pictures(pictures.filter(some).collect(engine="streaming"))


def summary_of(verdicts: Place) -> Summary:
    """The funnel of a file of verdicts."""
    with storage.reaching(verdicts):
        return summarise(tallied(storage.parquet(verdicts)).collect(engine="streaming"))

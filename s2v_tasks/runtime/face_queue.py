"""Images whose faces were checked, until they are sent: the likeliest first, or in the sample's order."""

from collections import Counter, deque
from collections.abc import Collection, Container, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from s2v_tasks.adapters.storage.spill import SpillStore
from s2v_tasks.domain import audit, faces
from s2v_tasks.domain.sample import ImageState, SampleResults, state_of

CHUNK_ROWS: Final = 2_000
_CHUNKS: Final = 10_000_000  # of one queue
_NUMBER: Final = "number"
_IMAGE: Final[dict[str, pl.DataType]] = {
    "image_key": pl.String(),
    "url": pl.String(),
    "others": pl.List(pl.String()),
    "url_index": pl.Int64(),
    "content_key": pl.String(),
}
_SCHEMA: Final[dict[str, pl.DataType]] = {
    _NUMBER: pl.Int64(),
    "segment": pl.String(),
    "is_early": pl.Boolean(),
    "rule": pl.String(),
    "is_seen": pl.Boolean(),
    **_IMAGE,
}


class _FrameQueue:
    """Rows, first in, first out; all but the first and the last few are on disk."""

    def __init__(self, store: SpillStore, queue: int) -> None:
        self._store = store
        self._first = self._next = queue * _CHUNKS
        self._head = self._tail = pl.DataFrame(schema=_SCHEMA)

    def put(self, rows: pl.DataFrame) -> None:
        """Append rows."""
        self._tail = pl.concat([self._tail, rows])
        if self._tail.height >= CHUNK_ROWS:
            self._store.append(self._next, self._tail)
            self._next += 1
            self._tail = self._tail.clear()

    def take(self, rows: int) -> pl.DataFrame:
        """Remove and return up to so many rows, at least one unless it is empty."""
        if self._head.is_empty() and self._first < self._next:
            self._head = self._store.read(self._first)
            self._store.path(self._first).unlink()
            self._first += 1
        elif self._head.is_empty():
            self._head, self._tail = self._tail, self._tail.clear()
        taken, self._head = self._head.head(rows), self._head.slice(rows)
        return taken


class _Walk:
    """The rows of a queue, one at a time."""

    def __init__(self, queue: _FrameQueue) -> None:
        self.queue = queue
        self._rows: deque[tuple[Any, ...]] = deque()

    @property
    def next(self) -> tuple[Any, ...] | None:
        """The row that is next, of ``_SCHEMA``; None: there is none now."""
        if not self._rows:
            self._rows.extend(self.queue.take(CHUNK_ROWS).iter_rows())
        return self._rows[0] if self._rows else None

    def pass_it(self) -> None:
        """Go on behind that row."""
        self._rows.popleft()


class FaceQueue:
    """Each image is in its bucket's queue, the sample's and, if it is early, that of the early ones.

    It is taken once, from any. The sample's results are those of the images that its queues have passed.
    ``hopeless``: segments whose images are not taken any more; it may grow. ``rules``: those that drop
    images: what they drop is taken for the sample only; a rule that is removed drops nothing any more.

    Not durable: a continued run fills it again, from the durable results of screen, face check and ledger.
    Memory: a few thousand images for each bucket, and a byte for each image of the run.
    """

    def __init__(
        self, folder: Path, hopeless: Container[str | None] = (), rules: Collection[str] = ()
    ) -> None:
        store = SpillStore(folder, _SCHEMA)
        store.open(truncate=True)
        self.results = SampleResults(sorted(rules))
        self._hopeless, self._rules = hopeless, rules
        self._buckets = [_FrameQueue(store, number) for number in range(faces.BUCKETS)]
        self._sample, self._early = (_Walk(_FrameQueue(store, faces.BUCKETS + n)) for n in range(2))
        self._ahead: dict[int, pl.DataFrame] = {}
        self._next_shard = 0
        self._put: Counter[str | None] = Counter()
        self._states = bytearray()
        self._waiting: Counter[tuple[str | None, str | None]] = Counter()  # by segment and rule

    @property
    def is_early(self) -> bool:
        """Whether an early image of the sample waits; right after `pass_decided`."""
        return self._early.next is not None

    @property
    def left_out(self) -> int:
        """How many images wait that are taken for the sample alone, or not at all: no one waits for them."""
        return sum(
            images
            for (segment, rule), images in self._waiting.items()
            if segment in self._hopeless or rule in self._rules
        )

    def put(self, shard: int, order: pl.DataFrame, images: pl.DataFrame) -> None:
        """Add the images of a shard; the sample's order goes by the shards' numbers, from 0 without a gap.

        ``order``: of `s2v_tasks.runtime.image_queue.Shard`, all that the shard covers, and what was seen of
        the faces. ``images``: those to check, as `s2v_tasks.domain.verdict_table.kept` returns them.
        """
        self._ahead[shard] = self._numbered(order, images)
        while self._next_shard in self._ahead:
            self._put_in_order(self._ahead.pop(self._next_shard))
            self._next_shard += 1

    def _numbered(self, order: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
        """Number images and put those to check into their buckets' queues; return all, of ``_SCHEMA``."""
        if images.is_empty():  # then a stopped run may not have all columns
            images = pl.DataFrame(schema=_IMAGE)
        rows = order.join(images, on="image_key", how="left", maintain_order="left")
        rows = rows.filter(pl.col("outcome").is_not_null() | pl.col("url").is_not_null())
        number = pl.int_range(len(self._states), len(self._states) + pl.len(), dtype=pl.Int64).alias(_NUMBER)
        rule, is_seen = faces.rule_of(self._rules), pl.col("faces_seen").is_not_null().alias("is_seen")
        rows = rows.with_columns(number, faces.bucket(), rule, is_seen, pl.lit(None).alias("is_early"))
        is_known = rows["outcome"].is_not_null()
        known = [ImageState.WAITING if one is None else state_of(one) for one in rows["outcome"]]
        self._states.extend(known)
        typed = rows.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
        self._waiting.update(typed.filter(~is_known).select("segment", "rule").iter_rows())
        for bucket in rows.filter(~is_known)["bucket"].unique():
            self._buckets[bucket].put(typed.filter(~is_known & (rows["bucket"] == bucket)))
        return typed

    def _put_in_order(self, rows: pl.DataFrame) -> None:
        is_early = []
        for segment in rows["segment"]:
            is_early.append(self._put[segment] < audit.EARLY)
            self._put[segment] += 1
        rows = rows.with_columns(pl.Series("is_early", is_early, dtype=pl.Boolean))
        self._sample.queue.put(rows)
        self._early.queue.put(rows.filter("is_early"))

    def take(self, images: int) -> pl.DataFrame:
        """The likeliest images, up to so many; none if there are none now. Columns as `take_sample`."""
        taken = pl.DataFrame(schema=_SCHEMA)
        held_back = {faces.BUCKET_OF[rule] for rule in self._rules}
        for queue in (self._buckets[n] for n in reversed(range(faces.BUCKETS)) if n not in held_back):
            while taken.height < images and not (found := queue.take(images - taken.height)).is_empty():
                is_free = [
                    self._state(number, segment) == ImageState.WAITING
                    for number, segment in found.select(_NUMBER, "segment").iter_rows()
                ]
                taken = pl.concat([taken, found.filter(pl.Series(is_free, dtype=pl.Boolean))])
        for number in taken[_NUMBER]:
            self._states[number] = ImageState.TAKEN
        self._waiting.subtract(taken.select("segment", "rule").iter_rows())
        return taken.select(_NUMBER, *_IMAGE)

    def pass_decided(self) -> None:
        """Add to the sample's results what needs no call: up to the next image that waits."""
        self.take_sample(0)

    def take_sample(self, images: int) -> pl.DataFrame:
        """The next images of the sample that wait, up to so many, the early ones first.

        Columns ``number``, for `settle`, and those of `put`'s ``images``.
        """
        taken: list[tuple[Any, ...]] = []
        # The sample of a segment is in order only if its early images come before its others.
        is_passed = self._pass(self._early, images, taken)
        self._pass(self._sample, images, taken, only_early=not is_passed)
        return pl.DataFrame(taken, schema=_SCHEMA, orient="row").select(_NUMBER, *_IMAGE)

    def _pass(
        self, walk: _Walk, images: int, taken: list[tuple[Any, ...]], *, only_early: bool = False
    ) -> bool:
        """Pass decided images, and take others; whether the end was reached."""
        while (row := walk.next) is not None:
            number, segment, is_early, rule, is_seen = row[:5]
            if only_early and not is_early:
                return False
            if (state := self._state(number, segment)) == ImageState.WAITING:
                if len(taken) == images:
                    return False
                taken.append(row)
                self._states[number] = state = ImageState.TAKEN
                self._waiting[segment, rule] -= 1
            walk.pass_it()
            in_run = walk is self._sample
            self.results.add(
                number,
                segment,
                state,
                to_run=in_run,
                to_segment=in_run != is_early,
                rule=rule,
                is_seen=is_seen,
            )
        return True

    def _state(self, number: int, segment: str | None) -> ImageState:
        state = ImageState(self._states[number])
        is_left_out = state == ImageState.WAITING and segment in self._hopeless
        return ImageState.NEITHER if is_left_out else state

    def settle(self, outcomes: Mapping[int, str]) -> None:
        """Settle images that were taken, by their numbers; those that get no outcome stay open."""
        for number, outcome in outcomes.items():
            self._states[number] = state = state_of(outcome)
            self.results.settle(number, state)

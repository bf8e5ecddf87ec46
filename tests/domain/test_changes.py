"""What changed between two runs: each image once, by its key."""

from typing import Any

import made_run
import polars as pl
from made_run import row

from s2v_tasks.domain.changes import (
    EXAMPLES_OF_EACH,
    SOURCES_SCHEMA,
    VERDICTS_SCHEMA,
    changes,
    images_of,
)


def image(
    key: str, outcome: str, reason: str | None = None, host: str = "a.example", **more: Any
) -> dict[str, Any]:
    """A row of an image."""
    return row(host, more.pop("source", "web"), outcome, image_key=key, reason=reason, **more)


def changed(
    before: list[dict[str, Any]], after: list[dict[str, Any]], *segment_columns: str | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both frames, collected as the command does."""
    columns = segment_columns or ("source", "source")
    found = changes(
        *(
            images_of(made_run.verdicts(*rows).lazy(), "image_url", column)
            for rows, column in zip((before, after), columns, strict=True)
        )
    )
    verdicts, sources = pl.collect_all([found.verdicts, found.sources], engine="streaming")
    assert (verdicts.schema, sources.schema) == (pl.Schema(VERDICTS_SCHEMA), pl.Schema(SOURCES_SCHEMA))
    return verdicts, sources


BEFORE = [
    image("1", "passed"),
    image("2", "failed", "no_human"),
    image("3", "passed", host="b.example"),
    image("4", "screened_out", "too_small", host="b.example"),
    image("1", "duplicate"),
    image("6", "failed", "no_human"),
]
AFTER = [
    image("2", "passed"),
    image("1", "failed", "several_humans"),
    image("4", "screened_out", "not_found", host="b.example", source="lab"),
    image("5", "passed", host="c.example", source="lab"),
    image("6", "passed"),
    image("5", "duplicate", "same_content"),
]


def test_verdicts_that_changed_are_counted_by_what_they_were_and_are() -> None:
    """Outcome and reason, most frequent first, with rows of the later run; no image of one run."""
    verdicts, _ = changed(BEFORE, AFTER)
    assert verdicts.rows() == [
        ("failed no_human", "passed", 2, [0, 4]),
        ("passed", "failed several_humans", 1, [1]),
        ("screened_out too_small", "screened_out not_found", 1, [2]),
    ]


def test_each_source_counts_what_came_went_and_changed() -> None:
    """An image counts for the source that it has in the later run; gained and lost are those that pass."""
    _, sources = changed(BEFORE, AFTER)
    assert sources.rows() == [
        ("segment", "web", 0, 1, 3, 2, 2),
        ("segment", "lab", 1, 0, 1, 1, 0),
        ("host", "a.example", 0, 0, 3, 2, 1),
        ("host", "b.example", 0, 1, 1, 0, 1),
        ("host", "c.example", 1, 0, 0, 1, 0),
    ]


def test_the_same_run_twice_shows_no_change() -> None:
    """Its sources are there, with zeros."""
    verdicts, sources = changed(AFTER, AFTER)
    assert verdicts.is_empty()
    assert (
        sources.select(pl.sum_horizontal("added", "removed", "changed", "gained", "lost"))["added"].sum() == 0
    )


def test_runs_of_which_one_has_no_segments_are_compared_by_host() -> None:
    """As is a run without a row."""
    assert changed(BEFORE, AFTER, None, "source")[1]["kind"].unique().to_list() == ["host"]
    verdicts, sources = changed([], AFTER, None, None)
    assert verdicts.is_empty()
    assert sources["added"].sum() == 5


def test_rows_without_a_key_are_not_compared() -> None:
    """A rejected URL is no image."""
    rejected = image("0", "screened_out", "empty_url") | {"image_key": None}
    assert changed([rejected], [rejected])[1].is_empty()


def test_a_change_has_a_few_examples_only() -> None:
    """The first rows of the later run."""
    many = [[image(str(n), outcome) for n in range(20)] for outcome in ("failed", "passed")]
    verdicts, _ = changed(*many)
    assert verdicts.row(0) == ("failed", "passed", 20, list(range(EXAMPLES_OF_EACH)))

"""Pass rate: passed / attempted images; in a run with a random sample, of that sample.

Other images were checked because they were likely to pass. Each segment has a sample of its own, a random
part of its images, of small segments a larger part. So in the rate of a run each segment counts by its size:
as its sample is to its images, so are the passes and attempts of the sample to those that the segment has.
"""

from typing import Final

import polars as pl

from s2v_tasks.models import ATTEMPTED, Outcome

TALLIES: Final = ("images", "sampled_images", "sampled", "sampled_passed", "of_sample")
MIN_SHOWN: Final = 10
"""With fewer attempted images in a random sample no rate is shown to people."""
_DIGITS: Final = 12


def in_sample() -> pl.Expr:
    """Whether a row counts for the pass rate: in a run with a random sample the audited ones, else all."""
    return pl.col("audited").fill_null(value=True)


def known(rate: float | None, sampled: int | None) -> float | None:
    """A rate that says something; None: its sample, if it is that of one, has fewer than `MIN_SHOWN` images.

    ``sampled``: attempted images of the sample; None: all images count.
    """
    return None if sampled is not None and sampled < MIN_SHOWN else rate


def shown(rate: float | None, sampled: int | None) -> str:
    """A rate in percent, for people, with the size of its sample; ``-`` if it is not `known`."""
    if (rate := known(rate, sampled)) is None:
        return "-"
    return f"{rate:.1%}" if sampled is None else f"{rate:.1%} of {sampled:,}"


def tallies() -> list[pl.Expr]:
    """``TALLIES`` as aggregates over rows: unique images, those of the sample, of these attempted, passed.

    ``of_sample``: rows of a run with a random sample.
    """
    outcome = pl.col("outcome")
    is_image = pl.col("image_key").is_not_null() & (outcome != Outcome.DUPLICATE.value)
    is_attempted = outcome.is_in([one.value for one in ATTEMPTED])
    counted = (
        is_image,
        is_image & in_sample(),
        is_attempted & in_sample(),
        (outcome == Outcome.PASSED.value) & in_sample(),
        pl.col("audited").is_not_null(),
    )
    return [one.cast(pl.Int64).sum().alias(name) for name, one in zip(TALLIES, counted, strict=True)]


def of_each() -> pl.Expr:
    """The pass rate of each row of ``TALLIES``; null without an attempt in the sample."""
    return pl.when(pl.col("sampled") > 0).then(pl.col("sampled_passed") / pl.col("sampled"))


def of_all() -> pl.Expr:
    """The pass rate of all rows of ``TALLIES``, one for each segment, together; null as in `of_each`.

    A segment without a sample says nothing, and is left out. Where each has the same part of its images in
    the sample, or all, that is simply passed / attempted.
    """
    is_sampled = pl.col("sampled_images") > 0
    passed, attempted = (pl.col(name).filter(is_sampled) for name in ("sampled_passed", "sampled"))
    weight = (pl.col("images") / pl.col("sampled_images")).filter(is_sampled)
    weighted = ((weight * passed).sum() / (weight * attempted).sum()).round(_DIGITS)
    return pl.when(attempted.sum() > 0).then(
        pl.when((weight == weight.first()).all())
        .then(passed.sum() / attempted.sum())
        .otherwise(weighted)  # rounded: else segments of equal rates may have a lower one together
    )

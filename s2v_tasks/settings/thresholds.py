"""Thresholds: what a dataset must keep to be published; each names its fact and its side of the limit."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from s2v_tasks.settings.fields import Limit, Option, Share, Usd
from s2v_tasks.settings.moved import Group


class Thresholds(Group):
    """What a dataset must keep to be published. None switches a limit off."""

    place: ClassVar[str] = "thresholds"

    min_pass_rate: Annotated[Share, Limit("pass_rate", "at least")] = Field(
        0.5, title="Lowest pass rate", description="passed / attempted"
    )
    max_unreachable_share: Annotated[Share, Limit("unreachable_share", "at most")] = Field(
        0.20,
        title="Highest share of unreachable images",
        description="screened out as unreachable / unique images; catches a broken resolver",
    )
    max_missed_share: Annotated[Share, Limit("missed_share_upper", "at most")] = Field(
        0.05,
        title="Highest missed share",
        description="upper bound of passing images that the face check drops / all that pass; proven by the"
        " random sample",
    )
    max_cost_usd: Annotated[Usd | None, Limit("dataset_cost_usd", "at most")] = Field(
        None,
        title="Highest cost of the dataset, USD",
        examples=[50.0],
        description="all that was ever charged for these images, by any run; if empty, no limit",
    )
    max_cost_per_approved_usd: Annotated[Usd | None, Limit("cost_per_approved_usd", "at most")] = Field(
        None,
        title="Highest cost per approved image, USD",
        examples=[0.002],
        description="cost of the dataset / passed; if empty, no limit",
    )
    max_pass_rate_drop: Annotated[Share | None, Limit("pass_rate_drop", "at most")] = Field(
        None,
        title="Highest drop of the pass rate",
        examples=[0.3],
        description="below the median of the last 10 publications, as a share of it; not evaluated with fewer"
        " than 3, or 100 attempted images; if empty, no limit",
    )
    publish: Annotated[
        Literal["all", "within_budget", "passing_segments"],
        Limit(
            "skipped_share",
            "at most",
            "max_skipped_share",
            (("all", 0.0), ("within_budget", None), ("passing_segments", None)),
        ),
        Option(
            "--publish-partial", "within_budget", "Publish although the budget did not reach every image."
        ),
        Option(
            "--publish-passing-segments",
            "passing_segments",
            "Publish only the segments that pass the gate on their own, also within the budget.",
        ),
    ] = Field(
        "all",
        title="Publish",
        description="all: only if every image was checked; within_budget: images that the budget"
        " did not reach do not close the gate; passing_segments: that, and segments that don't pass on their"
        " own are left out",
    )

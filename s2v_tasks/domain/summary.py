"""Summary of a finished run: the funnel from candidates to approved images."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain import face_summary, missed_share, pass_rate
from s2v_tasks.domain.dead_links import WEB_PAGE
from s2v_tasks.domain.face_summary import FaceSummary
from s2v_tasks.domain.funnel import ENDS, UNCHECKED, Step, steps_of
from s2v_tasks.domain.gate_rules import micro_sum, segment_of
from s2v_tasks.domain.image_url import host_of
from s2v_tasks.domain.ledger import HOPELESS, usd
from s2v_tasks.domain.missed_share import MissedShare
from s2v_tasks.models import ATTEMPTED, Outcome

ORIGIN_FAILED: Final = "origin_failed"
NAMED_REASONS: Final = (ORIGIN_FAILED, WEB_PAGE)
"""Reasons whose hosts a summary lists."""
MAX_HOSTS: Final = 10
"""Hosts listed for each reason."""

_SEGMENT: Final = "__s2v_segment"


@dataclass(frozen=True, slots=True)
class Summary:
    """The funnel. Counts are rows, those of outcomes as `Outcome` has them; USD. ``steps``: see `funnel`.

    ``reasons`` are (outcome, reason, rows), most frequent first. ``faces``: of a run with a face check.
    ``hosts`` are (reason, host, rows) of `NAMED_REASONS`: hosts whose images the vendor could not fetch, and
    hosts that sent web pages for images; most frequent first. ``pass_rate``: see
    `s2v_tasks.domain.pass_rate`; None if nothing was attempted. ``sampled``: attempted images of the random
    sample; None: the run has none.
    """

    rows: int
    duplicates: int
    screened_out: int
    already_checked: int
    checked: int
    passed: int
    failed: int
    error: int
    unknown: int
    skipped: int
    reasons: tuple[tuple[str, str, int], ...]
    run_cost_usd: float
    dataset_cost_usd: float
    hosts: tuple[tuple[str, str, int], ...] = ()
    pass_rate: float | None = None
    sampled: int | None = None
    steps: tuple[Step, ...] = ()
    faces: FaceSummary | None = None

    @property
    def cost_per_approved_usd(self) -> float | None:
        """What one approved image cost, over all runs; None if there is none."""
        return self.dataset_cost_usd / self.passed if self.passed else None

    @property
    def left_over(self) -> int:
        """Rows that the budget left over: the skipped ones without those that were left out as hopeless."""
        return self._rows_of(Outcome.SKIPPED)

    @property
    def hopeless(self) -> int:
        """Rows that were left out as hopeless: no larger budget would check them."""
        return self._rows_of(HOPELESS)

    def _rows_of(self, key: str) -> int:
        return sum(one.rows for one in self.steps if one.key == key)

    @property
    def shown_steps(self) -> list[Step]:
        """The steps that a table needs."""
        return [one for one in self.steps if one.is_shown]

    def host_list(self, reason: str) -> str:
        """The listed hosts of a reason with their rows, as text; empty if there are none."""
        return ", ".join(f"{host} ({rows:,})" for of, host, rows in self.hosts if of == reason)


def tallies_of(verdicts: pl.LazyFrame, segment_column: str | None = None) -> pl.LazyFrame:
    """Count verdict rows: a row per outcome, reason, source and segment; amounts in whole micro-USD."""
    micro = [micro_sum(pl.col(name)) for name in ("run_cost_usd", "lifetime_cost_usd")]
    segment = pl.lit("") if segment_column is None else segment_of(segment_column)
    return verdicts.group_by("outcome", "reason", "from_ledger", segment.alias(_SEGMENT)).agg(
        pl.len().alias("rows"), *pass_rate.tallies(), *missed_share.tallies(), *micro
    )


def hosts_of(urls: pl.LazyFrame) -> pl.LazyFrame:
    """The most frequent hosts of each of `NAMED_REASONS`: columns ``reason``, ``host`` and ``rows``.

    ``urls`` has the columns ``url`` and ``reason``.
    """
    return (
        urls.filter(pl.col("reason").is_in(NAMED_REASONS))
        .group_by("reason", host_of(pl.col("url")).alias("host"))
        .agg(pl.len().alias("rows"))
        .drop_nulls("host")
        .sort("reason", "rows", "host", descending=[False, True, False])
        .group_by("reason", maintain_order=True)
        .head(MAX_HOSTS)
        .select("reason", "host", "rows")
    )


def summarize(tallies: pl.DataFrame, hosts: pl.DataFrame | None = None) -> Summary:
    """Build the summary from the frames of ``tallies_of`` and ``hosts_of``."""
    counts = dict(tallies.group_by("outcome").agg(pl.col("rows").sum()).iter_rows())
    reasons = (
        tallies.filter(pl.col("reason").is_not_null())
        .group_by("outcome", "reason")
        .agg(pl.col("rows").sum())
        .sort("rows", "outcome", "reason", descending=[True, False, False])
    )
    attempted = sum(counts.get(outcome, 0) for outcome in ATTEMPTED)
    segments = tallies.group_by(_SEGMENT).agg(pl.col(*pass_rate.TALLIES).sum())
    already_checked = int(tallies.filter("from_ledger")["rows"].sum())
    steps = steps_of(tallies)
    return Summary(
        pass_rate=segments.select(pass_rate.of_all()).item(),
        sampled=int(segments["sampled"].sum()) if segments["of_sample"].sum() else None,
        steps=(
            Step("candidates", "candidates", int(tallies["rows"].sum())),
            *(steps[key] for key in UNCHECKED),
            Step("already_checked", "already checked, not paid again", already_checked),
            Step("checked", "checked now", attempted - already_checked),
            *(steps[key] for key in ENDS),
        ),
        faces=faces_of(tallies),
        rows=int(tallies["rows"].sum()),
        duplicates=counts.get(Outcome.DUPLICATE, 0),
        screened_out=counts.get(Outcome.SCREENED_OUT, 0),
        already_checked=already_checked,
        checked=attempted - already_checked,
        passed=counts.get(Outcome.PASSED, 0),
        failed=counts.get(Outcome.FAILED, 0),
        error=counts.get(Outcome.ERROR, 0),
        unknown=counts.get(Outcome.UNKNOWN, 0),
        skipped=counts.get(Outcome.SKIPPED, 0),
        reasons=tuple(reasons.iter_rows()),
        run_cost_usd=usd(int(tallies["run_cost_usd"].sum())),
        dataset_cost_usd=usd(int(tallies["lifetime_cost_usd"].sum())),
        hosts=() if hosts is None else tuple(hosts.iter_rows()),
    )


def faces_of(tallies: pl.DataFrame) -> FaceSummary | None:
    """What a run with a face check did not check, by the frame of ``tallies_of``; None of other runs."""
    if not tallies["of_sample"].sum():
        return None
    sums = tallies.select(pl.exclude("outcome", "reason", "from_ledger", _SEGMENT).sum()).row(0, named=True)
    hopeless = face_summary.hopeless_of(tallies, _SEGMENT)
    return FaceSummary(sums["sampled"], MissedShare.of(sums), hopeless)


def markdown(
    summary: Summary,
    headline: str,
    *,
    gate: str,
    rate: str,
    sources: str = "",
    compared: str = "",
    report: str = "",
    max_missed_share: float | None = None,
) -> str:
    """The summary as Markdown: the funnel as a table, the gate's message, the rate and its source.

    ``sources``: the table by source, which `s2v_tasks.domain.by_source.markdown` writes; ``compared``:
    that of `s2v_tasks.domain.drift.markdown`; ``report``: where the report is, a URL or a path;
    ``max_missed_share``: what the gate allows.
    """
    per_approved = summary.cost_per_approved_usd
    table = "\n".join(f"| {_label(one)} | {one.rows:,} |" for one in summary.shown_steps)
    faces = "" if summary.faces is None else face_summary.markdown(summary.faces.lines(max_missed_share))
    unfetched, pages = summary.host_list(ORIGIN_FAILED), summary.host_list(WEB_PAGE)
    notes = [
        f"**Not fetched by the vendor** {unfetched}; a later run may reach them.\n\n" if unfetched else "",
        f"**Web pages instead of images** from {pages}\n\n" if pages else "",
    ]
    by_source = f"**By source**, most waste first\n\n{sources}\n" if sources else ""
    drift = f"**Compared with the last publications**\n\n{compared}\n" if compared else ""
    price = f"USD {per_approved:.6f}" if per_approved is not None else "-"
    link = f"[{report}]({report})" if report.startswith(("http:", "https:")) else f"`{report}`"
    page = f"**Report** {link}\n\n" if report else ""
    return (
        f"## {headline}\n\n{page}| | rows |\n| --- | ---: |\n{table}\n\n"
        f"**Cost** this run USD {summary.run_cost_usd:.6f}, dataset over all runs"
        f" USD {summary.dataset_cost_usd:.6f}, per approved image {price}.\n\n"
        f"{faces}{''.join(notes)}**{gate}**\n\n{by_source}{drift}**Rate** {rate}\n"
    )


def _label(step: Step) -> str:
    return f"**{step.label}**" if step.key == Outcome.PASSED else step.label

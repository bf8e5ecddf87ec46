"""Publish rules: whether a dataset may be published. `s2v_tasks.adapters.storage.pointer` publishes it."""

from pydantic import BaseModel, ConfigDict

from s2v_tasks.models import GateReport


class GateSummary(BaseModel):
    """The pointer's summary of the open gate."""

    model_config = ConfigDict(frozen=True)

    checked_at: str
    expectations: int
    pass_rate: float | None


class RolledBack(BaseModel):
    """That the pointer was moved back: when, and number and start of the highest run that was withdrawn."""

    model_config = ConfigDict(frozen=True)

    at: str
    number: int
    started_at: str


class Publication(BaseModel):
    """The pointer ``published/current.json``: the only thing a downstream stage reads.

    ``number`` is the run's among those of its output folder, 0 in older files; ``format`` is
    `s2v_tasks.models.FORMAT`, 1 in older files; ``path`` is the approved file; amounts in USD,
    times ISO 8601 UTC. ``segments_left_out``: of which no row is in the
    file. ``rolled_back`` stays until a run is published that started after those withdrawn.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    number: int = 0
    run_id: str
    started_at: str
    path: str
    rows: int
    sha256: str
    run_cost_usd: float
    dataset_cost_usd: float
    gate: GateSummary
    segments_left_out: tuple[str, ...] = ()
    rolled_back: RolledBack | None = None

    @property
    def order(self) -> tuple[int, str]:
        """The run's place among those of its output folder."""
        return self.number, self.started_at

    @property
    def highest(self) -> tuple[int, str]:
        """The place of the last run that has been published: this one, or a later one that was withdrawn."""
        back = self.rolled_back
        return self.order if back is None else max(self.order, (back.number, back.started_at))


class ScopeFacts(BaseModel):
    """What later runs are compared with, of the whole dataset or of one segment; None: nothing to divide by.

    ``cost_per_approved_usd`` is None too if nothing passed; ``sampled`` is that of `s2v_tasks.models.Facts`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scope: str
    segment: str | None = None
    attempted: int
    pass_rate: float | None = None
    unreachable_share: float | None = None
    cost_per_approved_usd: float | None = None
    sampled: int | None = None


class PastPublication(Publication):
    """A file of ``published/history/``: what the pointer said, and the facts; none if no report is left."""

    facts: tuple[ScopeFacts, ...] = ()


def summary(report: GateReport) -> GateSummary:
    """Summarise a gate report for the pointer."""
    return GateSummary(
        checked_at=report.checked_at.isoformat(),
        expectations=len(report.expectations),
        pass_rate=report.facts[0].pass_rate,
    )


def may_publish(report: GateReport) -> bool:
    """Only an open gate publishes."""
    return report.open


def supersedes(new: Publication, current: Publication | None, *, again: bool = False) -> bool:
    """Whether ``new`` may replace what is published: never by a run that started earlier.

    The number decides, not a clock, which may have been wrong; among runs without one, the start does.
    After a rollback the runs that were withdrawn count too, unless a person publishes one ``again``.
    """
    if current is None or new.order == current.order:
        return True
    return new.order >= (current.order if again else current.highest)


def following(new: Publication, current: Publication | None) -> Publication:
    """``new`` as the pointer says it: a rollback is remembered until a later run is published."""
    back = None if current is None or new.order > current.highest else current.rolled_back
    return new.model_copy(update={"rolled_back": back})

"""Stage 7: what may be published. Decides; `s2v_tasks.adapters.storage` writes."""

from pydantic import BaseModel, ConfigDict

from s2v_tasks.models import GateReport


class GateSummary(BaseModel):
    """What the pointer says of the gate that let the data set through."""

    model_config = ConfigDict(frozen=True)

    judged_at: str
    expectations: int
    pass_rate: float | None


class Publication(BaseModel):
    """The pointer ``published/current.json``: the only thing a downstream stage reads.

    ``path`` is the approved file; amounts in USD, times ISO 8601 UTC.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    started_at: str
    path: str
    rows: int
    sha256: str
    cost_usd: float
    data_set_cost_usd: float
    gate: GateSummary


def summary(report: GateReport) -> GateSummary:
    """What the pointer says of a report."""
    return GateSummary(
        judged_at=report.judged_at.isoformat(),
        expectations=len(report.expectations),
        pass_rate=report.facts[0].pass_rate,
    )


def may_publish(report: GateReport) -> bool:
    """Only an open gate publishes."""
    return report.open


def supersedes(new: Publication, current: Publication | None) -> bool:
    """Whether ``new`` may replace what is published: never by a run that started earlier."""
    return current is None or new.started_at >= current.started_at

"""The report of a run, as one frozen record of plain values; `s2v_tasks.adapters.report_html` draws it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl

from s2v_tasks.domain import funnel, report_frames
from s2v_tasks.domain.drift import Scope
from s2v_tasks.domain.report_frames import ReportFrames
from s2v_tasks.domain.report_gate import GateView, Slider
from s2v_tasks.domain.run_commands import curate_command, gate_command, rows_command
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import ATTEMPTED, WAN22_S2V_DETECT, Outcome
from s2v_tasks.settings import CurateParameters

MAX_CODES: Final = 50
MAX_CHANGES: Final = 20
_NO_VERDICT: Final = (Outcome.ERROR.value, Outcome.UNKNOWN.value)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's folder says of it beside its verdicts. ``published``: rows, if the pointer is the run's.

    ``was_published``: by a run that another one has followed; ``previous``: the publication before it.
    """

    run_id: str
    run_dir: str
    status: str
    message: str
    parameters: CurateParameters
    versions: Mapping[str, str]
    files: Mapping[str, str]
    details: tuple[tuple[str, str], ...]
    approved: str
    published: int | None = None
    was_published: bool = False
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the funnel: rows, calls and USD over all runs; ``share``: of all rows."""

    key: str
    label: str
    rows: int
    calls: int
    usd: float
    share: float
    command: str | None
    reasons: tuple[tuple[str, int, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do next, with the command for it."""

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """Responses that were no verdict: images by their code; its command shows the rows of the reason."""

    outcome: str
    reason: str
    http_status: int | None
    code: str
    images: int
    command: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows. ``worst``: the most wasteful source in words; ``rate``: responses a second.

    ``compared``: beside the last publications, as `s2v_tasks.domain.drift.compare` gives it.
    """

    run: RunFacts
    tone: str
    headline: str
    why: str
    steps: tuple[Step, ...]
    worst: str
    bars: tuple[Bar, ...]
    frames: ReportFrames
    gate: GateView
    codes: tuple[Code, ...]
    rate: tuple[float, ...]
    calls: int
    reused: int
    resent: int
    repeat: str
    compared: tuple[Scope, ...]

    @property
    def approved(self) -> int:
        """Passed images."""
        return self.gate.facts[0].passed

    @property
    def hours(self) -> float:
        """Hours of the account at its rate, over all runs."""
        return self.calls / (3600 * WAN22_S2V_DETECT.rate_per_s)


def report_of(
    run: RunFacts, frames: ReportFrames, gate: GateView, compared: tuple[Scope, ...] = ()
) -> Report:
    """The report."""
    tone, headline, why = _decision(run, gate)
    worst, worst_step = _worst(run, frames.sources)
    steps = _next(run, gate)
    if worst_step:
        steps.insert(0 if gate.is_open is False and run.published is None else len(steps), worst_step)
    return Report(
        run, tone, headline, why, tuple(steps), worst,
        bars=tuple(_bars(run, frames.outcomes)),
        frames=frames,
        gate=gate,
        codes=tuple(_codes(run, frames.outcomes)),
        rate=tuple(report_frames.rate(frames.responses)),
        calls=_sum(frames.outcomes, "calls"),
        reused=_sum(frames.outcomes, "reused"),
        resent=_sum(frames.outcomes, "resent"),
        repeat=curate_command(run.parameters),
        compared=compared,
    )  # fmt: skip


def _sum(frame: pl.DataFrame, column: str) -> int:
    return int(frame[column].sum())


# -- the decision --------------------------------------------------------------------------------------


def _decision(run: RunFacts, gate: GateView) -> tuple[str, str, str]:
    """Its tone (``open``, ``closed`` or ``stopped``), in one sentence, and why."""
    held = f"All {gate.expectations} expectations held."
    failed = f"{len(gate.failed)} of {gate.expectations} expectations failed."
    closed = f"The gate is closed: {failed}"
    if run.published is not None:
        why = held if gate.is_open else f"It was published. With the thresholds evaluated last: {closed}"
        return "open", f"Published: {run.published:,} approved images.", why
    if run.was_published:
        return "open", "It was published; another run is published now.", held if gate.is_open else closed
    if gate.is_open is None:
        return "stopped", "Not published: the run is not finished.", run.message or "It has no gate yet."
    if gate.is_open:
        later = "a run that started later is published." in f"{run.message}."
        return "closed", "Not published, although the gate is open.", run.message if later else held
    if run.status == "budget_exhausted":
        return "closed", "Not published: the budget did not reach every image.", closed
    return "closed", "Not published: the gate is closed.", failed


def _next(run: RunFacts, gate: GateView) -> list[Step]:
    if gate.is_open is None:
        return [Step("Finish the run: the same command continues it.", curate_command(run.parameters))]
    if run.published is not None:
        return [Step(f"Train on the approved images: {run.approved}")]
    if gate.is_open:
        return [Step("Publish it.", gate_command(run.run_dir, {}, publish=True))]
    steps = []
    if run.status == "budget_exhausted":
        steps.append(
            Step("Curate again with a higher budget; images already checked cost nothing.", _repeat(run))
        )
    if gate.others:
        steps.append(Step("See the other expectations below: no threshold opens this gate."))
    elif loosened := _loosened(gate):
        what = "this looser threshold is" if len(loosened) == 1 else "these looser thresholds are"
        text = f"Or publish it as it is, if {what} acceptable for the whole and for each segment."
        steps.append(Step(text, gate_command(run.run_dir, loosened, publish=True)))
    return steps


def _repeat(run: RunFacts) -> str:
    return curate_command(run.parameters)


def _loosened(gate: GateView) -> dict[str, float | bool]:
    """The thresholds that would open the gate, by their options; empty if none would."""
    broken = [one for one in gate.sliders if not one.is_met]
    if any(one.worst == float("inf") for one in broken):
        return {}
    return {one.flag: True if one.is_switch else _rounded(one) for one in broken if one.worst is not None}


def _rounded(slider: Slider) -> float:
    """The observed value, rounded to the side on which it holds."""
    value, step = slider.worst or 0.0, 1e-6 if slider.fact.endswith("_usd") else 1e-4
    rounded = round(value // step * step, 6)
    if slider.at_least:
        return max(0.0, rounded if rounded <= value else rounded - step)
    return round(rounded if rounded >= value else rounded + step, 6)


def _worst(run: RunFacts, sources: pl.DataFrame) -> tuple[str, Step | None]:
    """The source that wasted most, in words, and the command that shows its rows."""
    if sources.is_empty() or not sources["wasted_calls"].sum():
        return "No check was wasted.", None
    kind = sources["kind"][0]
    first = sources.filter(pl.col("kind") == kind).row(0, named=True)
    name = shown(first["source"])
    text = (
        f"{kind} {name}: {first['wasted_calls']:,} of {first['calls']:,} calls were spent on images that did"
        f" not pass: USD {first['wasted_usd']:,.4f}"
    )
    command = rows_command(run.run_dir, outcome="failed", **{kind: first["source"]})
    return text, Step(f"Decide whether to keep buying from {kind} {name}: view what failed.", command)


# -- the numbers ---------------------------------------------------------------------------------------


def _bars(run: RunFacts, outcomes: pl.DataFrame) -> list[Bar]:
    rows, steps = _sum(outcomes, "rows"), funnel.steps_of(outcomes)
    attempted = [one.value for one in ATTEMPTED]
    checked = outcomes.filter(pl.col("outcome").is_in(attempted))
    bars = [
        _bar(funnel.Step("candidates", "candidates", rows), outcomes, rows, rows_command(run.run_dir)),
        *(_of(run, steps[key], outcomes, rows) for key in funnel.UNCHECKED),
        _bar(
            funnel.Step("checked", "checked", _sum(checked, "rows")), checked, rows,
            rows_command(run.run_dir, outcome=attempted),
        ),
        *(_of(run, steps[key], outcomes, rows) for key in funnel.ENDS),
    ]  # fmt: skip
    return [bar for bar in bars if bar.rows or bar.key in ("candidates", "checked", Outcome.PASSED.value)]


def _of(run: RunFacts, step: funnel.Step, outcomes: pl.DataFrame, rows: int) -> Bar:
    of = outcomes.filter(funnel.step() == step.key)
    outcome = funnel.outcome_of(step.key)
    reasons = outcomes.filter(outcome=outcome).drop_nulls("reason")["reason"].unique(maintain_order=True)
    command = rows_command(run.run_dir, outcome=outcome, reason=funnel.own_reasons(step.key, reasons))
    listed = tuple(
        (reason, count, rows_command(run.run_dir, outcome=outcome, reason=reason))
        for reason, count in step.reasons
    )
    return replace(_bar(step, of, rows, command), reasons=listed)


def _bar(step: funnel.Step, of: pl.DataFrame, rows: int, command: str | None) -> Bar:
    """The bar of a step, whose rows of the outcomes are ``of``."""
    share = step.rows / rows if rows else 0.0
    return Bar(step.key, step.label, step.rows, _sum(of, "calls"), float(of["usd"].sum()), share, command)


def _codes(run: RunFacts, outcomes: pl.DataFrame) -> list[Code]:
    found = outcomes.filter(pl.col("outcome").is_in(_NO_VERDICT)).head(MAX_CODES)
    return [
        Code(
            one["outcome"],
            one["reason"] or "",
            one["http_status"],
            shown(one["code"]),
            one["rows"],
            rows_command(run.run_dir, outcome=one["outcome"], reason=one["reason"]),
        )
        for one in found.iter_rows(named=True)
    ]


def shown_parameters(parameters: CurateParameters) -> list[tuple[str, Any]]:
    """Each parameter by its path, as text without a URL's query string."""
    found: list[tuple[str, Any]] = []

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}.", value)
            elif value is not None and value != []:
                found.append((f"{prefix}{name}", shown(str(value))))

    add("", parameters.model_dump())
    return found

"""The gate as the report shows it: each threshold with what was seen, and the facts that its sliders use.

The page's script opens the gate if no other expectation failed and every scope keeps every threshold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from s2v_tasks.models import Facts
from s2v_tasks.settings import CurateParameters
from s2v_tasks.settings.fields import Declared, Limit, declared

MAX_SEGMENTS: Final = 1_000
"""Segments that the page shows; the gate's own result counts all."""
_NUMBERS: Final = {one.name for one in fields(Facts)} - {"scope", "segment"}


@dataclass(frozen=True, slots=True)
class Slider:
    """A threshold: its expectations' ``parameter``, the ``fact`` that it limits, from which side, its value.

    ``limit`` None: no limit. ``observed``: overall; ``worst``: of all scopes, which alone decides.
    """

    parameter: str
    flag: str
    title: str
    fact: str
    at_least: bool
    limit: float | None
    observed: float | None
    worst: float | None
    most: float
    is_switch: bool

    def holds(self, value: float | None) -> bool:
        """As `s2v_tasks.settings.fields.Limit.holds`."""
        return Limit(self.fact, "at least" if self.at_least else "at most").holds(value, self.limit)

    @property
    def is_met(self) -> bool:
        """Whether it holds in every scope."""
        return self.holds(self.worst)


@dataclass(frozen=True, slots=True)
class GateView:
    """The gate's result and its facts. ``is_open`` None: it was not evaluated.

    ``others``: failed expectations that no slider represents, in words. ``facts``: of what is published, or
    of all if no segment is. ``segments``: of all; ``left_out``: those that are not published, with why.
    """

    is_open: bool | None
    sliders: tuple[Slider, ...]
    others: tuple[str, ...]
    failed: tuple[str, ...]
    facts: tuple[Facts, ...]
    expectations: int
    checked_at: str | None
    segments: tuple[Facts, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def script_facts(self) -> dict[str, Any]:
        """What the page's script works from; it has no text of others."""
        names = [one.fact for one in self.sliders]
        return {
            "others": len(self.others),
            "onlyPassing": bool(self.left_out),
            "sliders": [{"fact": one.fact, "atLeast": one.at_least} for one in self.sliders],
            "worst": [_number(one.worst) for one in self.sliders],
            "segments": [
                {
                    "attempted": fact.attempted,
                    "values": [_number(getattr(fact, n)) for n in names],
                }
                for fact in self.segments[:MAX_SEGMENTS]
            ],
        }


def left_out_of(report: Mapping[str, Any] | None) -> dict[str, str]:
    """The segments that a gate's report leaves out, each with why."""
    return {one["facts"]["segment"]: one["why"] for one in (report or {}).get("left_out") or ()}


def gate_view(
    facts: Sequence[Facts],
    limits: Mapping[str, float | None],
    report: Mapping[str, Any] | None,
    published: Sequence[Facts] | None = None,
) -> GateView:
    """The view.

    Args:
        facts: Overall first, then of each segment.
        limits: The thresholds by their parameters.
        report: ``gate.json``; None: the gate was not evaluated.
        published: The facts without the segments that are left out; None: the same.
    """
    left_out, segments = left_out_of(report), tuple(facts[1:])
    none_passed = bool(left_out) and len(left_out) == len(segments)
    facts = facts if published is None or none_passed else published
    shown = sorted(declared(CurateParameters), key=lambda one: "advanced" in one.path)
    sliders = tuple(_slider(one, facts, limits) for one in shown if _is_slider(one, limits))
    expectations = [] if report is None else list(report.get("expectations") or [])
    failed = [one for one in expectations if not one.get("success")]
    known = {name for one in sliders for name in (one.fact, one.fact.removesuffix("_usd"))}
    others = [one for one in failed if one.get("suite") != "gate" or one.get("name") not in known]
    if none_passed:  # the gate's own facts are those of no row
        others = [one for one in others if one.get("suite") != "gate"]
    return GateView(
        None if report is None else bool(report.get("open")),
        sliders,
        tuple(_words(one) for one in others),
        tuple(_words(one) for one in failed),
        tuple(facts),
        len(expectations),
        None if report is None else report.get("checked_at"),
        segments,
        tuple((segment, why) for segment, why in left_out.items()),
    )


def _is_slider(one: Declared, limits: Mapping[str, float | None]) -> bool:
    return one.limit is not None and one.limit.fact in _NUMBERS and _parameter(one) in limits


def _parameter(one: Declared) -> str:
    return one.limit.parameter or one.name if one.limit else one.name


def _slider(one: Declared, facts: Sequence[Facts], limits: Mapping[str, float | None]) -> Slider:
    assert one.limit is not None  # noqa: S101  (`_is_slider`)
    parameter, at_least = _parameter(one), one.limit.side == "at least"
    seen = [value for fact in facts if (value := getattr(fact, one.limit.fact)) is not None]
    limit = limits[parameter]
    finite = [value for value in (*seen, limit) if value is not None and math.isfinite(value)]
    most = 1.0 if not one.limit.fact.endswith("_usd") else 1.5 * max([0.001, *finite])
    return Slider(
        parameter,
        one.flag or "",
        one.title,
        one.limit.fact,
        at_least,
        limit,
        getattr(facts[0], one.limit.fact),
        (min if at_least else max)(seen) if seen else None,
        most,
        one.flag_value is not None,
    )


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "Infinity" if value == math.inf else value


def _words(expectation: Mapping[str, Any]) -> str:
    segment = expectation.get("segment")
    where = f" (segment {segment})" if segment is not None else ""
    wanted = f"observed {expectation.get('observed')}, wanted {expectation.get('threshold')}"
    return f"{expectation.get('name')}{where}: {wanted}"

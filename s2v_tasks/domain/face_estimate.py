"""Face estimate: what a face check will bring, before the first call. Pure arithmetic over a sample's faces.

With ``order`` a run makes the same calls as without, for likelier images. With ``drop`` it makes fewer: its
rules drop images, and the random sample checks as many, whatever their faces, as prove how little that gives
up. How many that takes depends on the pass rate, between the lowest that the gate allows and 1, and on good
images that the rules miss. Neither is known before the first call; a rule that is wrong drops nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from s2v_tasks.domain import faces
from s2v_tasks.domain.audit import EARLY, EARLY_SHARE, LATER_SHARE
from s2v_tasks.domain.interval import Span, wilson
from s2v_tasks.domain.missed_share import checks_to_prove

_NOT_KNOWN: Final = "not known: no faces were examined"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFaces:
    """The face check of the sample, and the run that it is for.

    Of ``examined`` images that the screen kept, ``none`` have no face, ``single`` one, ``several`` more.
    ``segments``: of the run, each with its random sample; 1 without a segment column. ``choice``:
    ``screening.faces``. The other two are thresholds of the gate.
    """

    examined: int
    none: int
    single: int
    several: int
    segments: int
    choice: str
    max_missed_share: float
    min_pass_rate: float

    def audit(self, calls: float) -> float:
        """How many of so many calls are at most the random sample's, where nothing is to be proven."""
        early = min(EARLY_SHARE * calls, EARLY * self.segments)
        return early + LATER_SHARE * max(0.0, calls - early / EARLY_SHARE)

    @property
    def is_dropping(self) -> bool:
        """Whether rules drop images."""
        return bool(faces.RULES.get(self.choice))

    @property
    def droppable(self) -> int:
        """Images of the sample that the rules would drop."""
        of_rule = {faces.NO_FACE: self.none, faces.SEVERAL_FACES: self.several}
        return sum(of_rule[rule] for rule in faces.RULES.get(self.choice, ()))


@dataclass(frozen=True, slots=True)
class _Case:
    """One case of what a run with rules that drop does: images."""

    dropped: float
    saved: float
    sample: float
    is_proven: bool


def spans(found: SampledFaces, to_pay: Span, paid: Span) -> dict[str, Span]:
    """Intervals for a run that checks faces, in images; empty if no image of the sample was examined.

    ``audit``: calls that are the random sample's; ``single_off``, ``single_order``: images with one face that
    are checked in input order, and with the likeliest first. If rules drop images, also ``dropped``: those
    that are not checked for it, and ``saved_calls``; ``audit`` is then what it takes if they miss nothing.

    Args:
        found: The sample's faces.
        to_pay: Images to pay for, whatever the budget.
        paid: Images that the budget reaches.
    """
    if not found.examined:
        return {}
    share, audit = wilson(found.single, found.examined), found.audit
    all_single = Span(to_pay.low * share.low, to_pay.high * share.high)
    known = {
        "audit": Span(audit(paid.low), audit(paid.high)),
        "single_off": Span(paid.low * share.low, paid.high * share.high),
        "single_order": Span(
            min(all_single.low, paid.low - audit(paid.low) * (1 - share.low)),
            min(all_single.high, paid.high - audit(paid.high) * (1 - share.high)),
        ),
    }
    if found.is_dropping:
        cases = _cases(found, to_pay, paid)
        known["audit"] = Span(*sorted(case.sample for case in cases))
        known["dropped"], known["saved_calls"] = Span(0, cases[1].dropped), Span(0, cases[1].saved)
    return known


def lines(found: SampledFaces, to_pay: Span, paid: Span, price_usd: float) -> list[tuple[str, str]]:
    """What the face check brings, as labels and values; ``price_usd``: of a call. Others as in `spans`."""
    known = spans(found, to_pay, paid)
    table: list[tuple[str, str]] = []
    if known:
        table += [
            (f"images with one face ({found.single:,} of {found.examined:,} sampled)", ""),
            (f"    in {paid.shown()} calls, --faces off", known["single_off"].shown()),
            (f"    in {paid.shown()} calls, --faces order", known["single_order"].shown()),
        ]
    if found.is_dropping:
        table += _drop_lines(found, known, to_pay, paid, price_usd)
    elif known:
        audit = known["audit"].high
        label = "of these calls, for the random sample"
        table.append((label, f"up to {audit:,.0f}, USD {audit * price_usd:,.4f}"))
    return table


def _drop_lines(
    found: SampledFaces, known: Mapping[str, Span], to_pay: Span, paid: Span, price_usd: float
) -> list[tuple[str, str]]:
    label, limit = f"dropped by --faces {found.choice}", found.max_missed_share
    allowed = ("    allowed by --max-missed-share", f"{limit:.1%} of all that would pass")
    if not known:
        return [(label, _NOT_KNOWN), allowed]
    dropped, saved = known["dropped"].high, known["saved_calls"].high
    best = _cases(found, to_pay, paid)[1]
    table = [
        (label, f"up to {dropped:,.0f} ({found.droppable:,} of {found.examined:,} sampled)"),
        ("    calls that it saves", f"up to {saved:,.0f}, USD {saved * price_usd:,.4f}"),
        ("    calls of the random sample", f"{known['audit'].shown()}, or more"),
        allowed,
    ]
    needed = f"{checks_to_prove(limit, 1.0):,.0f} passed images"
    if not dropped:
        table.append(("    nothing dropped: the proof takes", f"{needed}, most of the run"))
    elif not best.is_proven:
        table.append(("    the budget ends before the proof", f"{needed} of the sample"))
    return table


def _cases(found: SampledFaces, to_pay: Span, paid: Span) -> tuple[_Case, _Case]:
    """What happens at either end: most is dropped where most would be, and every image passes."""
    share = wilson(found.droppable, found.examined)
    return (
        _case(found, to_pay.low, share.low, paid.low, found.min_pass_rate),
        _case(found, to_pay.high, share.high, paid.high, 1.0),
    )


def _case(found: SampledFaces, images: float, share: float, budget: float, pass_rate: float) -> _Case:
    """Of so many images the rules drop a share; ``budget``: calls that are paid for."""
    proof = checks_to_prove(found.max_missed_share, pass_rate)
    if proof > images / 2:  # then they are only ordered: `s2v_tasks.domain.missed_share.is_out_of_reach`
        return _Case(0.0, 0.0, found.audit(budget), is_proven=True)
    sample = max(proof, found.audit(images * (1 - share)))
    calls = images - share * (images - sample)
    if calls > budget:  # the sample has its share of the calls, and nothing is left for more of it
        calls, sample = budget, found.audit(budget)
    return _Case(share * (images - sample), min(images, budget) - calls, sample, is_proven=sample >= proof)

"""Models: the records passed between stages; frozen, without input or output."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

FORMAT: Final = 2
"""The format of `manifest.json` and `current.json`; a file that names none is of format 1."""


class Outcome(StrEnum):
    """The outcome of one input row; every row has exactly one."""

    PASSED = "passed"
    FAILED = "failed"
    SCREENED_OUT = "screened_out"
    ERROR = "error"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


ATTEMPTED: Final = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.UNKNOWN)
"""The outcomes of images that were sent to the detector; the denominator of the shares."""


class Billing(StrEnum):
    """Whether the vendor charged a call. ``UNKNOWN`` counts at full price; ``NONE``: no call was made."""

    BILLED = "billed"
    NOT_BILLED = "not_billed"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The properties of one detector.

    ``price_micro_usd`` is per successful request, ``rate_per_s`` per account and model; sides in pixels.
    """

    model: str
    path: str
    verdict_field: str
    price_micro_usd: int
    rate_per_s: float
    min_side_px: int
    max_side_px: int
    formats: frozenset[str]


WAN22_S2V_DETECT = DetectorSpec(
    model="wan2.2-s2v-detect",
    path="/services/aigc/image2video/face-detect",
    verdict_field="check_pass",
    price_micro_usd=574,
    rate_per_s=5.0,
    min_side_px=400,
    max_side_px=7000,
    formats=frozenset({"jpeg", "png", "bmp", "webp"}),
)
"""The portrait check of wan2.2-s2v. Source: vendor's model, price and rate pages, as of 2026-10."""


@dataclass(frozen=True, slots=True)
class Screened:
    """The screening result of one image. ``reason`` None: the image is kept; sizes None: unknown.

    ``image_traits``: traits that reject nothing but may matter later, such as ``animated``, joined by commas.
    ``content_key``: a hash of all bytes, if they were fetched, else the key of the file that redirects led to
    (`s2v_tasks.domain.screening.file_key`). ``validator``: the image's strong ETag. ``url_index``: which of
    the image's URLs is to be used, None for the first. ``file_key``: the key of the file at the image's own
    URL, to which redirects of others may lead; it says nothing about the image, so it is not compared.
    """

    image_key: str
    reason: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    image_format: str | None = None
    image_traits: str | None = None
    content_key: str | None = None
    validator: str | None = None
    url_index: int | None = None
    file_key: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class UniqueImage:
    """One unique image: its key and the URL to send, as given. The URL may be signed, so it is not shown.

    ``cached``: an earlier screening result, which a conditional request may confirm. ``others``: more URLs of
    the image, which the screen tries where this one gives none.
    """

    image_key: str
    url: str = field(repr=False)
    cached: Screened | None = None
    others: tuple[str, ...] = field(default=(), repr=False)

    @property
    def host(self) -> str:
        """The URL's host name; empty without one."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the paid stage for one unique image.

    ``attempts`` and ``run_cost_micro_usd`` are of this run; ``lifetime_cost_micro_usd`` is the cost over all
    runs, lost responses included. ``billing`` is of the attempt that gave the verdict.
    """

    image_key: str
    outcome: Outcome
    reason: str | None = None
    check_pass: bool | None = None
    humanoid: bool | None = None
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None
    billing: Billing = Billing.NONE
    checked_at: datetime | None = None
    attempts: int = 0
    run_cost_micro_usd: int = 0
    lifetime_cost_micro_usd: int = 0
    from_ledger: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """The numbers that a gate checks, for the whole dataset or one segment.

    Counts are unique images (duplicates not counted), reused verdicts included; shares are 0 to 1 and None
    where there is nothing to divide by; amounts in USD. ``cost_per_approved_usd`` is infinite when money was
    spent and nothing passed. ``pass_rate_drop``: how much lower the pass rate is than
    ``median_pass_rate``, that of earlier publications, as a share of it; 0 if it is not lower. Both are None
    for a segment, and where a drop is not evaluated. ``sampled``: attempted images of the random sample,
    whose pass rate it is; None: the run has no sample.

    ``dropped``: images that rules of the face check dropped, without a call; None for a segment.
    ``missed_share_upper``: upper bound of the passing images among them, as a share of all that pass; None
    for a segment too, and if nothing was dropped. The last two: the bound of each rule, also of a segment;
    None if it dropped nothing.
    """

    scope: str
    segment: str | None
    rows: int
    unique: int
    passed: int
    failed: int
    error: int
    unknown: int
    skipped: int
    screened_out: int
    unreachable: int
    attempted: int
    pass_rate: float | None
    error_share: float | None
    unknown_share: float | None
    skipped_share: float | None
    unreachable_share: float | None
    run_cost_usd: float
    dataset_cost_usd: float
    cost_per_approved_usd: float | None
    median_pass_rate: float | None = None
    pass_rate_drop: float | None = None
    sampled: int | None = None
    dropped: int | None = None
    missed_share_upper: float | None = None
    no_face_missed_upper: float | None = None
    several_faces_missed_upper: float | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """The result of one expectation: its name, the observed value, and the threshold of the check."""

    suite: str
    name: str
    success: bool
    observed: str
    threshold: str
    segment: str | None = None

    def __str__(self) -> str:
        where = f" (segment {self.segment})" if self.segment is not None else ""
        return f"{self.name}{where}: observed {self.observed}, wanted {self.threshold}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A segment that is not published, by its facts; ``why``: the threshold that it breaks."""

    facts: Facts
    why: str

    @property
    def segment(self) -> str:
        """Its name."""
        return self.facts.segment or ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's result: open only if every expectation of every suite held.

    ``facts`` are those of what is to be published: without the segments of ``left_out``.
    """

    open: bool
    expectations: tuple[Expectation, ...]
    facts: tuple[Facts, ...]
    checked_at: datetime
    segment_column: str | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def all_facts(self) -> tuple[Facts, ...]:
        """The facts, then those of the segments that are left out."""
        return (*self.facts, *(one.facts for one in self.left_out))

    @property
    def failed(self) -> tuple[Expectation, ...]:
        """The expectations that did not hold."""
        return tuple(e for e in self.expectations if not e.success)

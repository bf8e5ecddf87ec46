"""The parameters of a run, declared once. Money has no default.

Each field is the one declaration of an option: `s2v_tasks.settings.fields` says what is made of it.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from s2v_tasks.settings.advanced import Advanced
from s2v_tasks.settings.fields import RUN_ID, Name, Option, Usd, described
from s2v_tasks.settings.moved import MOVED, Group
from s2v_tasks.settings.thresholds import Thresholds

PREFECT_TAG = "s2v"
"""On every run of the command and of deployments/prefect.yaml; automations go by it."""

OnLostResponse = Literal["retry", "assume-paid"]


class Source(Group):
    """Which rows of the candidates make the dataset."""

    place: ClassVar[str] = "source"

    url_column: str = Field(
        "image_url",
        title="URL column",
        min_length=1,
        description="name of the column with the image URLs; a field of a struct: image.url",
    )
    segment_column: Name | None = Field(
        None,
        title="Segment column",
        examples=["source"],
        description="each value of it must pass the gate on its own too, and has its share of a sample",
    )
    sample: int | None = Field(
        None,
        title="Sample size, rows",
        ge=1,
        examples=[500],
        description="so many rows, drawn at random and kept in their order; if empty, all rows",
    )


class Screening(Group):
    """The free check of an image's first bytes, before the paid call."""

    place: ClassVar[str] = "screening"

    enabled: Annotated[
        bool, Option("--no-screen", value=False, help="Pay for every image, without the free screen.")
    ] = Field(
        True,
        title="Screen for free first",
        description="format, size and dead links, by first bytes; without it every image is paid for",
    )
    dedupe: Literal["url", "bytes"] = Field(
        "url",
        title="Deduplicate by",
        description="url: rows of the same URL are one image; bytes: also images of the same bytes, for which"
        " every kept image is fetched whole",
    )
    faces: Literal["off", "order", "drop", "drop_several"] = Field(
        "off",
        title="Check faces first",
        description="order: images with one clear face are checked first; the pass rate is that of a random"
        " sample. drop: those without a face are not checked beyond that sample; drop_several: nor those with"
        " several. Images are fetched whole, up to 4 MB; needs the extra faces",
    )
    allow_private_hosts: bool = Field(
        False,
        title="Allow private hosts",
        description="for intranet and tests, at any port; link-local and metadata addresses stay rejected",
    )

    @field_validator("dedupe")
    @classmethod
    def _fetched(cls, dedupe: str, info: ValidationInfo) -> str:
        if dedupe == "bytes" and not info.data.get("enabled", True):
            raise ValueError("bytes can't be compared without the free screen: leave one of the two out")
        return dedupe

    @field_validator("faces")
    @classmethod
    def _screened(cls, faces: str, info: ValidationInfo) -> str:
        if faces != "off" and not info.data.get("enabled", True):
            raise ValueError("faces can't be checked without the free screen: leave one of the two out")
        return faces


class Spending(Group):
    """Whose money, and how much of it without a person's approval."""

    place: ClassVar[str] = "spending"

    credentials: Annotated[Name | None, Option(None)] = Field(
        None,
        title="Credentials",
        examples=["production"],
        description="name of a DashScope Credentials block; if empty, DASHSCOPE_API_KEY of the environment",
    )
    ledger_block: Annotated[Name | None, Option(None)] = Field(
        None,
        title="Ledger block",
        examples=["shared"],
        description="name of an S2V Ledger block, for a URL with a password; it goes before the others",
    )
    budget_name: Name | None = Field(
        None,
        title="Budget name",
        examples=["october"],
        description="runs with the same name share one cap, the one given last",
    )
    approve_above_usd: Usd | None = Field(
        None,
        title="Ask for approval above, USD",
        examples=[20.0],
        description="if the estimate's upper end is over it, the run waits for approval; if empty, never",
    )
    on_lost_response: OnLostResponse = Field(
        "retry",
        title="When a response is lost",
        description="retry: send the image once more; assume-paid: count it as paid and never send it again",
    )


class Output(Group):
    """Empty: its fields have moved to `Advanced`."""

    place: ClassVar[str] = "output"


Candidates = Annotated[
    str,
    described(
        "Candidates",
        "Parquet, CSV or NDJSON: a path, folder, glob, s3://... or hf://...; or sql:SELECT ...",
        min_length=1,
        examples=["/data/portraits.parquet", "/data/parts/*.parquet"],
    ),
    Option(None),  # an argument
]
Out = Annotated[
    str,
    described(
        "Output folder",
        "Folder for everything that is written; a path or s3://...",
        min_length=1,
        examples=["/data/curated"],
    ),
]


def _budget() -> Any:
    """One for each use: pydantic 2.10 writes the default of one use into the other."""
    return described(
        "Budget, USD",
        "What this run may spend at most, USD; an image costs 0.000574.",
        gt=0,
        allow_inf_nan=False,
        examples=[5.0],
    )


def _advanced() -> Any:
    """One for each use, as above."""
    return described("Advanced", "What few runs need.", examples=[{"limit": 1000}])


Budget = Annotated[float, _budget()]
SourceGroup = Annotated[Source, described("Rows", "Which rows make the dataset.")]
ThresholdsGroup = Annotated[Thresholds, described("Gate", "What the dataset must keep to be published.")]
ScreeningGroup = Annotated[Screening, described("Screening", "The free check before the paid call.")]
SpendingGroup = Annotated[Spending, described("Money", "Whose money, and when to ask first.")]
AdvancedSwitch = Annotated[Advanced | None, _advanced()]
"""The parameter of a flow: Prefect's form draws a switch that is set to None."""
GROUPS: Final = ("source", "thresholds", "screening", "spending", "advanced")
"""The groups in the order of the forms and of the command's panels."""

MovedOutput = SkipJsonSchema[Output]
MovedRunId = SkipJsonSchema[Annotated[str, Field(pattern=f"^{RUN_ID}$")] | None]
"""Parameters that a saved deployment may still set; no form shows them."""


class EstimateParameters(Group):
    """Everything that decides what an estimate says. ``budget_usd`` None: no limit."""

    candidates: Candidates
    budget_usd: Annotated[float | None, _budget()] = None
    source: SourceGroup = Source()
    thresholds: ThresholdsGroup = Thresholds()
    screening: ScreeningGroup = Screening()
    spending: SpendingGroup = Spending()
    advanced: Annotated[
        Advanced, _advanced(), BeforeValidator(lambda value: Advanced() if value is None else value)
    ] = Advanced()

    @property
    def moved_parameters(self) -> dict[str, object]:
        """What was given by old names, by old path."""
        groups = (value for _, value in self if isinstance(value, Group))
        return {path: value for group in (self, *groups) for path, value in group.moved.items()}

    @model_validator(mode="after")
    def _put_together(self) -> Self:
        taken = {
            MOVED[path].removeprefix("advanced."): value
            for path, value in self.moved_parameters.items()
            if MOVED[path].startswith("advanced.")
        }
        if taken:
            given = self.advanced.model_dump(exclude_unset=True, exclude_none=True)
            self.__dict__["advanced"] = Advanced.model_validate({**taken, **given})
        return self


class CurateParameters(EstimateParameters):
    """Everything that decides what a curation run does; no secret among it."""

    out: Out
    budget_usd: Budget
    output: Annotated[Output, Field(exclude=True)] = Output()

    @property
    def sample_seed(self) -> int | None:
        """The seed of the sample that gives the pass rate; None: images are checked in input order."""
        return None if self.screening.faces == "off" else self.advanced.seed

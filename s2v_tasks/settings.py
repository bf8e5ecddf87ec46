"""Settings: what comes from the environment, and the defaults. Money has no default.

Read when a run starts, never at import. A misspelt variable is not noticed by the environment reader, so the
key has no default, and a run that falls back to OUT's own ledger says so.
"""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DASHSCOPE_BASE_URL = "https://dashscope.aliyuncs.com/api/v1"
"""China (Beijing) only. Source: vendor's API page, as of 2026-10."""

PREFECT_TAG = "s2v"
"""On every run of the command and of deployments/prefect.yaml; automations go by it."""

OnUnknown = Literal["retry", "assume-paid"]
Runner = Literal["loop", "processes", "dask", "ray"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Name = Annotated[str, Field(min_length=1)]
_LEDGER_URL: Final = r"^(sqlite(\+aiosqlite)?:///|postgres(ql)?(\+asyncpg)?://([^:@/?]*@)?)[^@]+$"
LedgerUrl = Annotated[str, Field(pattern=_LEDGER_URL)]
"""Without a password: a form's values are stored in clear, so one is refused before there is a run."""
RUN_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def titled(title: str, **more: Any) -> Any:
    """A parameter of a flow with a title: given in another way, Prefect puts the bare name over it."""
    return Field(json_schema_extra={"title": title}, **more)


Candidates = Annotated[
    str,
    titled("Candidates", min_length=1, examples=["/data/portraits.parquet", "/data/parts/*.parquet"]),
]
Out = Annotated[str, titled("Output folder", min_length=1, examples=["/data/curated"])]
Budget = Annotated[float, titled("Budget, USD", gt=0, allow_inf_nan=False, examples=[5.0])]


class Frozen(BaseModel):
    """A group of parameters at a door: unknown names and bad values are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(Frozen):
    """What a data set must keep to be published. None switches a limit off."""

    min_pass_rate: Share = Field(0.5, title="Lowest pass rate", description="passed / attempted")
    max_unknown_share: Share = Field(
        0.05, title="Highest share without an answer", description="unknown / attempted"
    )
    max_error_share: Share = Field(0.10, title="Highest share of errors", description="error / attempted")
    max_unreachable_share: Share = Field(
        0.20,
        title="Highest share of unreachable pictures",
        description="screened out as unreachable / unique candidates; catches a broken resolver",
    )
    allow_partial: bool = Field(
        False,
        title="Allow a partial data set",
        description="pictures the budget did not reach are no obstacle",
    )
    max_cost_usd: Usd | None = Field(
        None,
        title="Highest cost of the data set, USD",
        examples=[50.0],
        description="all that was ever charged for these pictures, by any run",
    )
    max_cost_per_approved_usd: Usd | None = Field(
        None,
        title="Highest cost per approved picture, USD",
        examples=[0.002],
        description="cost of the data set / passed",
    )


class Source(Frozen):
    """Which rows of the candidates make the data set."""

    url_column: str = Field(
        "image_url",
        title="URL column",
        min_length=1,
        description="name of the column with the image URLs; a field of a struct: image.url",
    )
    limit: int | None = Field(
        None, title="First rows only", ge=1, examples=[1000], description="the rest is not part of the run"
    )
    sample: int | None = Field(
        None,
        title="Sample of so many rows",
        ge=1,
        examples=[500],
        description="drawn from those rows, kept in their order",
    )
    seed: int = Field(0, title="Seed", ge=0, lt=2**32, description="the same seed draws the same rows")
    stratify_by: Name | None = Field(
        None,
        title="Stratify by column",
        examples=["source"],
        description="the sample holds every value in its proportion",
    )
    segment_column: Name | None = Field(
        None,
        title="Segment column",
        examples=["source"],
        description="every value of this column must pass the gate on its own too",
    )


class Screening(Frozen):
    """The free look at a picture's first bytes, before the paid call."""

    enabled: bool = Field(
        True,
        title="Screen for free first",
        description="format, size and dead links, by a picture's first bytes; without it all are paid for",
    )
    allow_private_hosts: bool = Field(
        False,
        title="Allow private hosts",
        description="for intranet and tests, at any port; link-local and metadata addresses stay refused",
    )
    allow_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field(
        (),
        title="Allow ports",
        description="where pictures are fetched from beside 80, 443, 8080 and 8443",
    )
    fresh_for_h: float = Field(
        24.0,
        title="Hours a look stays fresh",
        ge=0,
        le=8760,
        description="a picture whose header was read since then is not looked at again; 0: always",
    )
    same_content: bool = Field(
        False,
        title="Pay once for the same bytes",
        description="fetches every kept picture whole; one with the bytes of another is its duplicate",
    )

    @field_validator("same_content")
    @classmethod
    def _fetched(cls, wanted: bool, info: ValidationInfo) -> bool:
        if wanted and not info.data.get("enabled", True):
            raise ValueError("bytes can't be compared without the free screen: leave one of the two out")
        return wanted

    runner: Runner = Field(
        "loop",
        title="Where to look",
        description="in the flow's own loop, or by Prefect's task runner for processes, Dask or Ray",
    )
    shards_at_once: int = Field(
        4, title="Shards looked at at once", ge=1, le=1000, description="more is for a cluster"
    )

    @property
    def allowed(self) -> str:
        """Where a look may go, beyond what every look may."""
        ports = sorted(set(self.allow_ports))
        return f"{'private' if self.allow_private_hosts else 'public'} {','.join(map(str, ports))}".strip()

    estimate_from: int = Field(
        200,
        title="Pictures looked at for the estimate",
        ge=0,
        le=10_000,
        description="before the run, at random; with 0 the estimate can't tell what the screen will save",
    )


class Spending(Frozen):
    """Whose money and whose pace."""

    ledger: LedgerUrl | None = Field(
        None,
        title="Ledger",
        examples=["sqlite:////data/ledger.sqlite3", "postgresql://s2v@db.example/ledger"],
        description="sqlite:///PATH or postgresql://...; S2V_LEDGER_URL, else OUT/ledger.sqlite3",
    )

    ledger_block: Name | None = Field(
        None,
        title="Ledger block",
        examples=["shared"],
        description="name of an S2V Ledger block, for a URL with a password; it goes before the others",
    )

    @field_validator("ledger", mode="before")
    @classmethod
    def _in_words(cls, url: object) -> object:
        if not isinstance(url, str):
            return url
        if urlsplit(url).password or "password" in urlsplit(url).query:
            raise ValueError(
                "parameters are stored in clear: put a URL with a password in S2V_LEDGER_URL, or in a block"
            )
        if not re.match(_LEDGER_URL, url):
            raise ValueError("a ledger's URL reads sqlite:///PATH or postgresql://USER@HOST/DATABASE")
        return url

    account: str = Field(
        "default", title="Account", min_length=1, description="runs of one account share its rate"
    )
    credentials: Name | None = Field(
        None,
        title="Credentials",
        examples=["production"],
        description="name of a DashScope Credentials block; if empty, DASHSCOPE_API_KEY of the environment",
    )
    budget_name: Name | None = Field(
        None,
        title="Budget name",
        examples=["october"],
        description="runs with the same name share one cap",
    )
    on_unknown: OnUnknown = Field(
        "retry",
        title="When an answer is lost",
        description="ask once more, or count it as paid and never ask again",
    )
    approve_above_usd: Usd | None = Field(
        None,
        title="Ask a person above, USD",
        examples=[20.0],
        description="if the estimate's upper end is over it, the run pauses for a yes; if empty, never",
    )
    approve_within_h: float = Field(
        24.0,
        title="Hours to wait for a yes",
        gt=0,
        le=720,
        description="then the run ends; nothing is asked or paid meanwhile",
    )


class Output(Frozen):
    """What is written, and how the work is cut."""

    keep_duplicates: bool = Field(
        False,
        title="Keep duplicates",
        description="approved.parquet also holds the duplicates of passed rows",
    )
    shard_size: int = Field(
        100,
        title="Pictures per task",
        ge=1,
        le=10_000,
        description="1 gives a task for each picture, which costs the Prefect server most",
    )


class EstimateParameters(Frozen):
    """Everything that decides what an estimate says. ``budget_usd`` None: no limit."""

    candidates: Candidates
    budget_usd: Budget | None = None
    source: Source = Source()
    screening: Screening = Screening()
    spending: Spending = Spending()


class CurateParameters(EstimateParameters):
    """Everything that decides what a curation run does; no secret among it."""

    out: Out
    budget_usd: Budget
    thresholds: Thresholds = Thresholds()
    output: Output = Output()


class Environment(BaseSettings):
    """What the environment says beside the vendor's account."""

    model_config = SettingsConfigDict(env_prefix="S2V_", frozen=True)

    ledger_url: str | None = None
    source_url: SecretStr | None = None


class Service(BaseSettings):
    """Where the vendor's service is, from the variable its own SDK reads."""

    model_config = SettingsConfigDict(env_prefix="DASHSCOPE_", frozen=True)

    http_base_url: HttpUrl = HttpUrl(DASHSCOPE_BASE_URL)


class DashScope(Service):
    """The vendor's account, from the variables its own SDK reads."""

    api_key: SecretStr
    workspace: str | None = None

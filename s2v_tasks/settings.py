"""Settings: what comes from the environment, and the defaults. Money has no default.

Read when a run starts, never at import. A misspelt variable is not noticed by the environment reader, so
whatever matters has no default and is asked for by name.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DASHSCOPE_BASE_URL = "https://dashscope.aliyuncs.com/api/v1"
"""China (Beijing) only. Source: vendor's API page, as of 2026-10."""

OnUnknown = Literal["retry", "assume-paid"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
        description="all that was ever charged for these pictures, by any run",
    )
    max_cost_per_approved_usd: Usd | None = Field(
        None, title="Highest cost per approved picture, USD", description="cost of the data set / passed"
    )


class DashScope(BaseSettings):
    """The vendor's account, from the variables its own SDK reads."""

    model_config = SettingsConfigDict(env_prefix="DASHSCOPE_", frozen=True)

    api_key: SecretStr
    http_base_url: HttpUrl = HttpUrl(DASHSCOPE_BASE_URL)
    workspace: str | None = None

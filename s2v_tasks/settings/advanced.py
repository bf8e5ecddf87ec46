"""The group of the forms that is closed: what few runs need. A new parameter goes here unless most set it."""

import re
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from s2v_tasks.settings.fields import RUN_ID, Limit, Option, Share
from s2v_tasks.settings.moved import Group

Runner = Literal["loop", "processes", "dask", "ray"]

_LEDGER_URL: Final = r"^(sqlite(\+aiosqlite)?:///|postgres(ql)?(\+asyncpg)?://([^:@/?]*@)?)[^@]+$"
LedgerUrl = Annotated[str, Field(pattern=_LEDGER_URL)]
"""Without a password: a form's values are stored in clear, so one is refused before there is a run."""


class Advanced(Group):
    """What few runs need; every field has a default that fits most."""

    place: ClassVar[str] = "advanced"

    limit: int | None = Field(
        None, title="First rows only", ge=1, examples=[1000], description="the rest is not part of the run"
    )
    seed: int = Field(
        0, title="Seed of the sample", ge=0, lt=2**32, description="the same seed draws the same rows"
    )
    allow_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65_535)], ...], Option("--allow-port")] = (
        Field(
            (),
            title="Allow ports",
            description="where images are fetched from besides 80, 443, 8080 and 8443",
        )
    )
    header_cache_ttl_h: float = Field(
        24.0,
        title="Header cache, hours",
        ge=0,
        le=8760,
        description="an image whose header was read since then is not fetched again; 0: always fetched",
    )
    runner: Runner = Field(
        "loop",
        title="Task runner of the screen",
        description="loop: the flow's own event loop; else Prefect's task runner for processes, Dask or Ray",
    )
    max_concurrent_shards: int = Field(
        4, title="Concurrent shards", ge=1, le=1000, description="screened at a time; more is for a cluster"
    )
    estimate_sample_size: int = Field(
        200,
        title="Images fetched for the estimate",
        ge=0,
        le=10_000,
        description="before the run, at random; with 0 the estimate can't tell what the screen will save",
    )
    max_error_share: Annotated[Share, Limit("error_share", "at most")] = Field(
        0.10, title="Highest share of errors", description="error / attempted"
    )
    max_unknown_share: Annotated[Share, Limit("unknown_share", "at most")] = Field(
        0.05, title="Highest share of lost responses", description="unknown / attempted"
    )
    ledger: LedgerUrl | None = Field(
        None,
        title="Ledger",
        examples=["sqlite:////data/ledger.sqlite3", "postgresql://s2v@db.example/ledger"],
        description="sqlite:///PATH or postgresql://...; if empty, S2V_LEDGER_URL, else OUT/ledger.sqlite3",
    )
    account: str = Field(
        "default", title="Account", min_length=1, description="runs of one account share its rate"
    )
    approve_within_h: Annotated[float, Option(None)] = Field(
        24.0,
        title="Hours to wait for approval",
        gt=0,
        le=720,
        description="then the run ends; nothing is sent or paid meanwhile",
    )
    shard_size: int = Field(
        100,
        title="Images per task",
        ge=1,
        le=10_000,
        description="1 makes a task for each image, which costs the Prefect server most",
    )
    keep_duplicates: bool = Field(
        False,
        title="Keep duplicates",
        description="approved.parquet also holds the duplicates of passed rows",
    )
    report_images: Annotated[
        bool,
        Option(
            "--no-report-images",
            value=False,
            help="Keep no thumbnails of a sample of the images for the report, and fetch none for it.",
        ),
    ] = Field(
        True,
        title="Images in the report",
        description="thumbnails of up to 200 images, drawn at random, are kept in the run's folder",
    )
    data_docs: bool = Field(
        False,
        title="Data Docs",
        description="Great Expectations' pages are written into data_docs/, beside gate.json",
    )
    run_id: Annotated[str, Field(pattern=f"^{RUN_ID}$")] | None = Field(
        None,
        title="Run to continue",
        examples=["20261001T020000Z-a1b2c3"],
        description="its id; if empty, the flow run's own, so that a retry continues the same run",
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

"""What a run would do: its parameters, checked before anything is written or sent."""

import asyncio
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeVar

import polars as pl
from pydantic import ValidationError

from s2v_tasks.adapters.database.connection import absolute, redact_password
from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.http.detect_client import service_of
from s2v_tasks.adapters.http_environment import check_http_environment
from s2v_tasks.adapters.images.face_detector import model_file
from s2v_tasks.adapters.storage import file_io, listing, sources
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.adapters.storage.listing import SourceItem
from s2v_tasks.adapters.storage.object_store import ObjectPath
from s2v_tasks.adapters.storage.portable_types import check_portable
from s2v_tasks.adapters.storage.query import Query
from s2v_tasks.adapters.storage.run_folder import identity
from s2v_tasks.domain import candidate_table, passing_segments
from s2v_tasks.domain.ledger import Scope, images_bought
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import InputError, StorageUnavailable, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.runtime.face_check import check_model
from s2v_tasks.settings import (
    Credentials,
    CurateParameters,
    DashScope,
    Environment,
    EstimateParameters,
    Runner,
    Service,
    Source,
)

OWN_LEDGER: Final = "outputs that share an account need one ledger: --ledger or S2V_LEDGER_URL"
"""What a run says that has a ledger of its own: another run would pay for its images again."""

P = TypeVar("P", bound=EstimateParameters)


@dataclass(frozen=True, slots=True)
class EstimatePlan:
    """What an estimate is of. ``ledger_url`` None: no ledger, so no image is known."""

    parameters: EstimateParameters
    files: list[SourceItem]
    service: str
    ledger_url: str | None = field(repr=False)  # it may hold a password

    @property
    def scope(self) -> Scope:
        """Whose images and whose rate limit."""
        return Scope(self.service, self.parameters.advanced.account, WAN22_S2V_DETECT)


@dataclass(frozen=True, slots=True)
class Plan(EstimatePlan):
    """A run that could be opened: its parameters are checked, nothing is written or sent."""

    parameters: CurateParameters
    ledger_url: str = field(repr=False)
    credentials: Credentials
    identity: str

    @property
    def has_own_ledger(self) -> bool:
        """Whether the ledger is the output folder's own, shared with no other."""
        return self.ledger_url == _own_ledger(self.out)

    @property
    def out(self) -> StoragePath:
        """The folder below which everything is written."""
        return file_io.parse_path(self.parameters.out)


def plan(
    parameters: CurateParameters, credentials: Credentials | None = None, ledger: str | None = None
) -> Plan:
    """Check everything that can be checked before anything is written or sent.

    Args:
        parameters: What the run does.
        credentials: The vendor's account; None for the environment's.
        ledger: The ledger's URL; None for that of the parameters, else the environment's, else the output
            folder's own.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    parameters = _at_home(parameters)
    passing_segments.is_wanted(parameters.thresholds, parameters.source.segment_column)
    credentials = credentials or credentials_from_env()
    _check_key(credentials.api_key.get_secret_value())
    out = file_io.parse_path(parameters.out)
    check_out(out)
    _check_runner(parameters.advanced.runner)
    if parameters.screening.faces != "off":
        check_model(model_file())
    _ = Environment().user_agent_contact
    check_http_environment()
    files = _readable(parameters, out)
    if not images_bought(parameters.budget_usd, WAN22_S2V_DETECT.price_micro_usd):
        raise UsageError(
            f"a budget of USD {parameters.budget_usd} buys no image at"
            f" USD {WAN22_S2V_DETECT.price_micro_usd / 1e6} each; raise --budget-usd"
        )
    url = ledger or parameters.advanced.ledger or Environment().ledger_url or _own_ledger(out)
    if url is None:
        raise UsageError(
            f"--out {out} holds no ledger, for that is a database: name one with --ledger or S2V_LEDGER_URL"
        )
    ledger_url = absolute(url)
    service = service_of(credentials.base_url)
    # Another spelling of the same paths is the same run.
    paths = {name: sources.normalize_path(getattr(parameters, name)) for name in ("candidates", "out")}
    normalized = parameters.model_copy(update=paths)
    run_identity = identity(normalized, service, redact_password(ledger_url), sources.fingerprint(files))
    return Plan(parameters, files, service, ledger_url, credentials, run_identity)


def estimate_plan(parameters: EstimateParameters) -> EstimatePlan:
    """The plan of an estimate alone: it needs no key and no output folder.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    parameters = _at_home(parameters)
    try:
        base_url = str(Service().http_base_url)
    except ValidationError:
        raise UsageError(_NO_BASE_URL) from None
    _ = Environment().user_agent_contact
    check_http_environment()
    files = _readable(parameters)
    url = parameters.advanced.ledger or Environment().ledger_url
    return EstimatePlan(parameters, files, service_of(base_url), absolute(url) if url else None)


def _at_home(parameters: P) -> P:
    """The same parameters with the home folder in place of ``~``; forms and YAML have no shell."""
    paths = {name: getattr(parameters, name, None) for name in ("candidates", "out")}
    return parameters.model_copy(update={name: expanded(path) for name, path in paths.items() if path})


def snapshot(planned: EstimatePlan, path: StoragePath) -> int:
    """Read the candidates that are part of the run into a parquet file, and count them.

    Estimates and runs read rows in this one way, so what a run would refuse has no price.

    Raises:
        InputError: A file can't be read whole and unambiguously, a column is missing or clashes, or there are
            no rows.
    """
    source, candidates = planned.parameters.source, planned.parameters.candidates
    with sources.wrap_read_errors(candidates, planned.files):
        expected = sources.check_records(planned.files)
        file_io.sink(_rows_of(planned), path)
        count: int = file_io.parquet(path).select(pl.len()).collect().item()
    if (
        expected is not None
        and planned.parameters.advanced.limit is None
        and source.sample is None
        and count != expected
    ):
        raise InputError(
            f"can't read {candidates}: it holds {expected} records, of which {count} were read;"
            " save it as parquet"
        )
    if not count:
        raise InputError(f"{candidates} holds no rows; there is nothing to curate")
    return count


async def read_rows(planned: EstimatePlan, path: StoragePath) -> int:
    """`snapshot` in a thread; if it is cancelled, so is a query that it waits for."""
    try:
        return await asyncio.to_thread(snapshot, planned, path)
    except asyncio.CancelledError:
        for one in planned.files:
            if isinstance(one, Query):
                one.cancel()
        raise


def _rows_of(planned: EstimatePlan) -> pl.LazyFrame:
    """The candidates that are part of the run, not read yet."""
    source = planned.parameters.source
    rows = sources.scan(planned.files, planned.parameters.candidates)
    _check_columns(rows.collect_schema(), source)
    advanced = planned.parameters.advanced
    return candidate_table.selected(rows, advanced.limit, source.sample, advanced.seed, source.segment_column)


def _readable(parameters: EstimateParameters, out: StoragePath | None = None) -> list[SourceItem]:
    """The files or query that the candidates name; each has the wanted columns and none that a run adds."""
    files = sources.find(parameters.candidates, out)
    if not isinstance(files[0], Query | str):
        for one, columns in zip(files, sources.schemas(files, parameters.candidates), strict=True):
            _check_present(columns, parameters, one)
    with sources.wrap_read_errors(parameters.candidates):
        schema = sources.schema(files, parameters.candidates)
    if schema is not None:
        _check_columns(schema, parameters.source)
    return files


def _check_present(columns: pl.Schema, parameters: EstimateParameters, one: SourceItem) -> None:
    """Check that every file has the columns that a run uses: a file without one would give only nulls."""
    source = parameters.source
    for wanted in (source.url_column, source.segment_column):
        if wanted is not None and wanted not in columns and wanted.partition(".")[0] not in columns:
            raise InputError(
                f"{listing.item_name(one)} has no column {wanted!r}; {candidate_table.columns_shown(columns)}"
                + ("; name the one with the URLs (--url-column)" if wanted == source.url_column else "")
            )


def _check_columns(schema: pl.Schema, source: Source) -> None:
    candidate_table.check_columns(schema, source.url_column, SCHEMA, source.segment_column)
    check_portable(schema)


def credentials_from_env() -> Credentials:
    """The vendor's account as the environment gives it.

    Raises:
        UsageError: The key is missing, or the base URL is none.
    """
    try:
        return Credentials.of(DashScope())
    except ValidationError as error:
        wrong = {str(e["loc"][0]) for e in error.errors()}
        if "api_key" in wrong:
            raise UsageError(
                "no API key: set DASHSCOPE_API_KEY (or try `s2v demo`, which needs none)"
            ) from None
        raise UsageError(_NO_BASE_URL) from None


_NO_BASE_URL = "DASHSCOPE_HTTP_BASE_URL is no http(s) URL; it ends in /api/v1"


def _check_runner(name: Runner) -> None:
    module = {"dask": "prefect_dask", "ray": "prefect_ray"}.get(name)
    if module is not None and find_spec(module) is None:
        raise UsageError(
            f"the runner {name!r} needs an extra; in a clone: pip install -c constraints.txt '.[{name}]'"
        )


def _check_key(api_key: str) -> None:
    if not api_key.strip():
        raise UsageError("DASHSCOPE_API_KEY is empty: set it (or try `s2v demo`, which needs none)")
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        # It can't be sent in a header; that must not look like a lost response.
        raise UsageError(
            "DASHSCOPE_API_KEY holds blanks, line breaks or letters that no key has: set it again"
        )


def check_out(out: StoragePath) -> None:
    """Reject an output folder that can't be created or written.

    Raises:
        UsageError: It, or its nearest existing parent, is no folder that may be written.
    """
    if isinstance(out, ObjectPath):
        try:
            out.folders()
        except StorageUnavailable as error:
            raise UsageError(f"--out {error.message}") from None
        return
    existing = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise UsageError(f"--out {out}: {existing} is no folder that may be written; name another")


def _own_ledger(out: StoragePath) -> str | None:
    return f"sqlite:///{out / 'ledger.sqlite3'}" if isinstance(out, Path) else None

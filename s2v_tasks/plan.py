"""What a run would do, checked against the world before anything is written or asked."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from s2v_tasks import candidates as stage1
from s2v_tasks.adapters import sources, storage
from s2v_tasks.adapters.connection import absolute
from s2v_tasks.adapters.dashscope import Access, service_of
from s2v_tasks.adapters.folder import identity, masked
from s2v_tasks.adapters.objects import ObjectPath
from s2v_tasks.adapters.sources import Found
from s2v_tasks.adapters.storage import Place
from s2v_tasks.errors import StorageUnavailable, UsageError
from s2v_tasks.ledger import Scope, images_bought
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import (
    CurateParameters,
    DashScope,
    Environment,
    EstimateParameters,
    Runner,
    Service,
    Source,
)
from s2v_tasks.verdicts import SCHEMA


@dataclass(frozen=True, slots=True)
class Question:
    """What an estimate is of. ``ledger_url`` None: no ledger, so nothing is known."""

    parameters: EstimateParameters
    files: list[Found]
    service: str
    ledger_url: str | None = field(repr=False)  # it may hold a password

    @property
    def scope(self) -> Scope:
        """Whose pictures and whose pace."""
        return Scope(self.service, self.parameters.spending.account, WAN22_S2V_DETECT)


@dataclass(frozen=True, slots=True)
class Plan(Question):
    """A run that could be opened: parameters checked against the world, nothing written, nobody asked."""

    parameters: CurateParameters
    ledger_url: str = field(repr=False)
    access: Access
    identity: str

    @property
    def has_own_ledger(self) -> bool:
        """Whether the ledger is the one of this output folder, known to no other."""
        return self.ledger_url == _own_ledger(self.out)

    @property
    def out(self) -> Place:
        """The folder everything is written below."""
        return storage.place(self.parameters.out)


def plan(parameters: CurateParameters, access: Access | None = None, ledger: str | None = None) -> Plan:
    """Check everything that can be checked before anything is written or asked.

    ``access`` None: the account is the environment's; ``ledger`` None: its URL is the parameters', else the
    environment's, else the output folder's own.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    access = access or environment_access()
    _check_key(access.api_key.get_secret_value())
    out = storage.place(parameters.out)
    check_out(out)
    _check_runner(parameters.screening.runner)
    files = _readable(parameters, SCHEMA)
    if not images_bought(parameters.budget_usd, WAN22_S2V_DETECT.price_micro_usd):
        raise UsageError(
            f"a budget of USD {parameters.budget_usd} buys no picture at"
            f" USD {WAN22_S2V_DETECT.price_micro_usd / 1e6} each; raise --budget-usd"
        )
    url = ledger or parameters.spending.ledger or Environment().ledger_url or _own_ledger(out)
    if url is None:
        raise UsageError(
            f"--out {out} holds no ledger, for that is a database: name one with --ledger or S2V_LEDGER_URL"
        )
    ledger_url = absolute(url)
    service = service_of(access.base_url)
    # However the same files are spelt, from whatever folder, it is the same run.
    placed = {name: sources.spelt(getattr(parameters, name)) for name in ("candidates", "out")}
    spelt = parameters.model_copy(update=placed)
    run_identity = identity(spelt, service, masked(ledger_url), sources.fingerprint(files))
    return Plan(parameters, files, service, ledger_url, access, run_identity)


def question(parameters: EstimateParameters) -> Question:
    """What to ask for an estimate alone: no key and no output folder is needed.

    Raises:
        UsageError: Something is missing or wrong; the message says what to do.
    """
    try:
        base_url = str(Service().http_base_url)
    except ValidationError:
        raise UsageError(_NO_BASE_URL) from None
    files = _readable(parameters)
    url = parameters.spending.ledger or Environment().ledger_url
    return Question(parameters, files, service_of(base_url), absolute(url) if url else None)


def rows_of(asked: Question, added: Collection[str] = ()) -> pl.LazyFrame:
    """The candidates that are part of the run, not read yet; none of their columns will be ``added``.

    Raises:
        InputError: A column is missing or clashes.
    """
    source = asked.parameters.source
    rows = sources.scan(asked.files)
    _check_columns(rows.collect_schema(), source, added)
    return stage1.selected(rows, source.limit, source.sample, source.seed, source.stratify_by)


def _readable(parameters: EstimateParameters, added: Collection[str] = ()) -> list[Found]:
    """What the candidates name; the wanted columns are in it, and none that will be ``added``."""
    files = sources.find(parameters.candidates)
    with sources.reading(parameters.candidates):
        schema = sources.schema(files)
    if schema is not None:
        _check_columns(schema, parameters.source, added)
    return files


def _check_columns(schema: pl.Schema, source: Source, added: Collection[str]) -> None:
    stage1.check_columns(schema, source.url_column, added, source.segment_column, source.stratify_by)


def environment_access() -> Access:
    """The vendor's account as the environment gives it.

    Raises:
        UsageError: The key is missing, or the base URL is none.
    """
    try:
        access = Access.of(DashScope())
    except ValidationError as error:
        wrong = {str(e["loc"][0]) for e in error.errors()}
        if "api_key" in wrong:
            raise UsageError(
                "no API key: set DASHSCOPE_API_KEY (or try `s2v demo`, which needs none)"
            ) from None
        raise UsageError(_NO_BASE_URL) from None
    return access


_NO_BASE_URL = "DASHSCOPE_HTTP_BASE_URL is no http(s) URL; it ends in /api/v1"


def _check_runner(name: Runner) -> None:
    module = {"dask": "prefect_dask", "ray": "prefect_ray"}.get(name)
    if module is not None and find_spec(module) is None:
        raise UsageError(f"the runner {name!r} is not installed: pip install 's2v-tasks[{name}]'")


def _check_key(api_key: str) -> None:
    if not api_key.strip():
        raise UsageError("DASHSCOPE_API_KEY is empty: set it (or try `s2v demo`, which needs none)")
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        # It could not leave in a header; that must not look like an answer that was lost.
        raise UsageError(
            "DASHSCOPE_API_KEY holds blanks, line breaks or letters that no key has: set it anew"
        )


def check_out(out: Place) -> None:
    """Refuse an output folder that can't be made or written.

    Raises:
        UsageError: It, or what it would be in, is no folder or not ours to write.
    """
    if isinstance(out, ObjectPath):
        try:
            out.folders()
        except StorageUnavailable as error:
            raise UsageError(f"--out {error.message}") from None
        return
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UsageError(f"--out {out}: {there} is no folder that may be written; name another")


def _own_ledger(out: Place) -> str | None:
    return f"sqlite:///{out / 'ledger.sqlite3'}" if isinstance(out, Path) else None

"""Great Expectations: validates two suites against two frames and writes one folder of Data Docs.

Only this module imports the library, and only when a suite is run: the import takes seconds and 200 MB. It
fails closed: Great Expectations drops an expectation of an unknown type and passes a suite that has none
left, so an expectation that was not checked as written is a ``SuiteError`` here.
"""

import importlib
import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from s2v_tasks.adapters.lazy_import import lazily_imported
from s2v_tasks.adapters.library_errors import wrap_library_errors
from s2v_tasks.adapters.suite_file import (
    Parameters,
    Rule,
    Suite,
    broken_suite,
    number_text,
    read_suite,
    values_of,
)
from s2v_tasks.domain.gate_rules import SUITES
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.errors import UsageError
from s2v_tasks.models import Expectation

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite, ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

WITHHELD = frozenset({"message"})
"""Columns of the verdict schema that are not validated: the vendor's text may quote a URL."""

BATCH_ROWS = 200_000
"""Rows validated at once; a larger number needs more memory and gives fewer Data Docs pages."""

_ONE_AT_A_TIME = threading.Lock()  # Great Expectations keeps one current context per process


def run_suites(
    verdicts: pl.DataFrame | pl.LazyFrame,
    facts: pl.DataFrame,
    parameters: Parameters,
    docs_dir: Path | None = None,
    suites: Traversable | None = None,
    batch_rows: int = BATCH_ROWS,
) -> tuple[Expectation, ...]:
    """Validate both suites and write Data Docs. It takes seconds: call it in a thread.

    Args:
        verdicts: The verdict table; only the columns of the verdict schema are validated.
        facts: The facts, one row per scope.
        parameters: Values of the suites' ``$PARAMETER``s.
        docs_dir: Where to write ``index.html``; None: no Data Docs.
        suites: A folder with ``verdicts.json`` and ``gate.json``; None: the package's own.
        batch_rows: Rows of ``verdicts`` in memory at once; each partition must pass the whole suite.

    Raises:
        SuiteError: A suite can't be read, lost expectations, or could not be checked as written.
    """
    folder = suites or resources.files("s2v_tasks.expectations")
    loaded = [read_suite(folder, name, parameters) for name in SUITES]
    names = verdicts.lazy().collect_schema().names()
    own = verdicts.lazy().select(name for name in SCHEMA if name in names and name not in WITHHELD)
    checked: list[Expectation] = []
    with _ONE_AT_A_TIME:
        context = _open_context(docs_dir)
        for suite, frame, size in zip(loaded, (own, facts.lazy()), (batch_rows, None), strict=True):
            results = _validate_partitions(context, suite, frame, parameters, size)
            for rule in suite.rules:
                success, threshold = results[rule.name]["success"], rule.threshold(parameters)
                observed, segment = _observed(rule, results[rule.name], frame)
                checked.append(Expectation(suite.name, rule.name, success, observed, threshold, segment))
    return tuple(checked)


def check_usable(parameters: Parameters) -> None:
    """Import Great Expectations and load both suites: a run that its gate can't evaluate must not begin.

    Raises:
        UsageError: It can't be imported or opened here.
        SuiteError: A suite can't be read, or lost expectations.
    """

    def unusable(message: str) -> UsageError:
        return UsageError(
            f"Great Expectations can't be used, so the gate could not be evaluated ({message});"
            " fix that (memory, the installation, PYTHONOPTIMIZE). Nothing was sent"
        )

    loaded = [read_suite(resources.files("s2v_tasks.expectations"), name, parameters) for name in SUITES]
    with wrap_library_errors(unusable), _ONE_AT_A_TIME:
        context = _open_context(None)
        for suite in loaded:
            _load(context, suite)


def _validate_partitions(
    context: "EphemeralDataContext",
    suite: Suite,
    frame: pl.LazyFrame,
    parameters: Parameters,
    batch_rows: int | None,
) -> dict[str, dict[str, Any]]:
    """The result of each rule, by name, over all partitions of the frame; None: one partition."""
    loaded = _load(context, suite)
    height = frame.select(pl.len()).collect(engine="streaming").item()
    wanted = int(parameters["rows"] or 0)
    size, total = batch_rows or max(height, 1), height if batch_rows is None else max(height, wanted)
    merged: dict[str, dict[str, Any]] = {}
    for first in range(0, max(total, 1), size):
        name = suite.name if total <= size else f"{suite.name} from row {first}"
        given = {**parameters, "rows_here": max(0, min(wanted - first, size))}
        results = _validate(context, suite, loaded, name, frame.slice(first, size).collect(), given)
        for rule in suite.rules:
            result = results[rule.name]
            part = {**result.result, "success": result.success is True}
            merged[rule.name] = _merged(merged[rule.name], part, first) if first else part
    return merged


def _merged(whole: dict[str, Any], part: dict[str, Any], first: int) -> dict[str, Any]:
    """The result over two partitions; the second begins with row ``first``. Counts add up."""
    merged = dict(part if whole["success"] and not part["success"] else whole)
    merged["success"] = whole["success"] and part["success"]
    for count in ("unexpected_count", "element_count", "observed_value"):
        if isinstance(whole.get(count), int):
            merged[count] = whole[count] + part[count]
    if indices := part.get(_INDICES):
        merged[_INDICES] = whole.get(_INDICES) or [first + index for index in indices]
    return merged


_INDICES = "partial_unexpected_index_list"


def _validate(
    context: "EphemeralDataContext",
    suite: Suite,
    loaded: "ExpectationSuite",
    name: str,
    frame: pl.DataFrame,
    parameters: Parameters,
) -> "dict[str, ExpectationValidationResult]":
    """Run the suite through a checkpoint, which renders its Data Docs page; results by rule name."""
    import great_expectations as gx
    from great_expectations.checkpoint.actions import UpdateDataDocsAction
    from great_expectations.exceptions.exceptions import GreatExpectationsError

    try:
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        definition = gx.ValidationDefinition(
            name=name, data=asset.add_batch_definition_whole_dataframe(name), suite=loaded
        )
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            actions=[UpdateDataDocsAction(name="data_docs")] if context.get_docs_sites_urls() else [],
            # A wrong value in the verdicts may be anything, a URL too: Data Docs only count them.
            result_format={"result_format": "SUMMARY", "exclude_unexpected_values": suite.name == SUITES[0]},
        )
        run = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": frame.to_pandas()}, expectation_parameters=dict(parameters)
        )
        context.data_sources.delete(name)  # frees its rows
    except (TypeError, ValueError, GreatExpectationsError) as error:
        raise broken_suite(suite.name, f"Great Expectations refuses it ({error})") from error
    (validated,) = run.run_results.values()
    results = {config.meta["name"]: r for r in validated.results if (config := r.expectation_config)}
    for rule in suite.rules:
        if rule.name not in results:
            raise broken_suite(suite.name, f"{rule.name} was not checked")
        info = results[rule.name].exception_info
        if any(values_of("raised_exception", info)):
            error_message = "; ".join(filter(None, values_of("exception_message", info)))
            raise broken_suite(suite.name, f"{rule.name} could not be checked ({error_message})")
    return results


def _load(context: "EphemeralDataContext", suite: Suite) -> "ExpectationSuite":
    """Build the suite and compare it with its file: the library only logs an unknown type or severity."""
    import great_expectations as gx
    from great_expectations.exceptions.exceptions import GreatExpectationsError

    try:
        built = gx.ExpectationSuite(**suite.content)
    except (TypeError, ValueError, GreatExpectationsError) as error:
        raise broken_suite(suite.name, f"Great Expectations refuses it ({error})") from error
    kept = {(expectation.meta or {}).get("name") for expectation in built.expectations}
    if lost := [rule.name for rule in suite.rules if rule.name not in kept]:
        raise broken_suite(suite.name, f"type or severity is unknown of: {', '.join(lost)}")
    return context.suites.add(built)


def preload() -> None:
    """Import Great Expectations in a thread, while the caller waits for something else.

    It is no daemon thread: the interpreter must not exit while an extension initialises.
    """

    def load() -> None:
        with suppress(Exception):  # raised again by `check_usable`, where it is reported
            _import_gx()

    threading.Thread(target=load, name="load-great-expectations").start()


def _import_gx() -> None:
    """Import Great Expectations without its analytics, and load what the suites don't use only on use."""
    # This process handles keys and signed URLs: no analytics, unless the user turned them on.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings(), lazily_imported("altair", "scipy.stats"):
        # Python's own, for two modules that Great Expectations imports.
        warnings.filterwarnings("ignore", "module 'sre_", DeprecationWarning)
        importlib.import_module("great_expectations")


def _open_context(docs_dir: Path | None) -> "EphemeralDataContext":
    """Open a context in memory: no analytics, no progress bars, at most one local Data Docs site."""
    _import_gx()
    import great_expectations as gx
    from great_expectations.data_context.types import base

    sites = {} if docs_dir is None else {"data_docs": _site(docs_dir)}
    config = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(),
        data_docs_sites=sites,
        progress_bars=base.ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _site(docs_dir: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs_dir.resolve()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _observed(rule: Rule, result: Mapping[str, Any], frame: pl.LazyFrame) -> tuple[str, str | None]:
    """The observed value and its segment: of the facts the worst value, of the verdicts how many rows."""
    limits = {"min_value", "max_value"} & rule.kwargs.keys()
    if limits and "segment" in frame.collect_schema() and "row_condition" not in rule.kwargs:
        return _worst(rule.kwargs["column"], frame.collect(), largest="max_value" in limits)
    if mismatched := result.get("details", {}).get("mismatched"):
        return "; ".join(f"{kind} {', '.join(names)}" for kind, names in mismatched.items()), None
    if "unexpected_count" not in result:
        seen = result.get("observed_value")
        return (f"{len(seen)} in all" if isinstance(seen, list) else number_text(seen)), None
    count, rows = result["unexpected_count"], result["element_count"]
    if not count:
        return f"so in all {rows} rows", None
    observed, indices = f"not so in {count} of {rows} rows", result.get(_INDICES)
    if not indices:
        return observed, None
    first = frame.slice(indices[0], 1).collect().row(0, named=True)
    return observed + (f", first in row {first['row']}" if "row" in first else ""), first.get("segment")


def _worst(column: str, facts: pl.DataFrame, *, largest: bool) -> tuple[str, str | None]:
    """The value nearest to its limit, or past it; of equal ones the first, so overall before a segment."""
    known = facts.filter(pl.col(column).is_not_null())
    if known.is_empty():
        return "nothing", None
    worst = known.sort(column, descending=largest, maintain_order=True).row(0, named=True)
    return number_text(worst[column]), worst["segment"]

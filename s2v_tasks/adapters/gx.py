"""The edge to Great Expectations: two suites over two frames, one judgement, one folder of Data Docs.

The only module that imports it, and only when something is judged: it takes seconds and 200 MB. It fails
closed: Great Expectations drops an expectation it does not know and passes a suite that has none left, so
whatever was not judged as written is a ``SuiteError`` here.
"""

import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import polars as pl

from s2v_tasks.errors import SuiteError
from s2v_tasks.gate import SUITES
from s2v_tasks.models import Expectation
from s2v_tasks.verdicts import SCHEMA

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite, ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext

Parameters = Mapping[str, float | int | None]

WITHHELD = frozenset({"message"})
"""Columns that are not handed over: the vendor's text may quote a URL."""

_ONE_AT_A_TIME = threading.Lock()  # Great Expectations keeps one current context per process
_ROW = "row"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation of a suite as its file has it.

    ``wants`` are the words for its threshold, with parameters in braces; ``kwargs`` what it is judged by.
    """

    name: str
    wants: str
    kwargs: dict[str, Any]

    def threshold(self, parameters: Parameters) -> str:
        """What is wanted, in words; a limit that is None is no limit."""
        named = {field for _, field, _, _ in Formatter().parse(self.wants) if field}
        if any(parameters[field] is None for field in named):
            return "no limit"
        return self.wants.format(**{field: _number(parameters[field]) for field in named})


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite's file: its rules in order, and the text as Great Expectations takes it."""

    name: str
    rules: tuple[Rule, ...]
    content: dict[str, Any]


def judge(
    verdicts: pl.DataFrame,
    facts: pl.DataFrame,
    parameters: Parameters,
    docs_dir: Path,
    suites: Traversable | None = None,
) -> tuple[Expectation, ...]:
    """Judge both frames and write ``docs_dir/index.html``. Takes seconds: call it in a thread.

    Of ``verdicts`` only the columns of the verdict schema are looked at, whatever else it holds. ``suites``
    is a folder with ``verdicts.json`` and ``gate.json``; the package's own by default.

    Raises:
        SuiteError: a suite can't be read, has lost expectations, or could not be judged as written.

    """
    folder = suites if suites is not None else resources.files("s2v_tasks.expectations")
    loaded = [read_suite(folder, name, parameters) for name in SUITES]
    own = verdicts.select(name for name in SCHEMA if name in verdicts.columns and name not in WITHHELD)
    with _ONE_AT_A_TIME:
        context = _open_context(docs_dir)
        return tuple(
            expectation
            for suite, frame in zip(loaded, (own, facts), strict=True)
            for expectation in _judge_suite(context, suite, frame, parameters)
        )


def read_suite(folder: Traversable, name: str, parameters: Parameters) -> Suite:
    """Read ``<name>.json`` and check all that can be checked without Great Expectations.

    Raises:
        SuiteError: missing, not JSON, empty, a rule without its words, or a parameter that has no value.

    """
    try:
        content = json.loads(folder.joinpath(f"{name}.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise _broken(name, f"{name}.json can't be read ({type(error).__name__})") from error
    except ValueError as error:
        raise _broken(name, f"{name}.json is not JSON ({error})") from error
    try:
        if content["name"] != name or not content["expectations"]:
            raise _broken(name, "it has another name or no expectations, and an empty suite passes everything")
        rules = tuple(
            Rule(item["meta"]["name"], item["meta"]["wants"], item["kwargs"]) for item in content["expectations"]
        )
        for rule in rules:
            _ = [parameters[used] for used in _parameters_in(rule.kwargs)], rule.threshold(parameters)
    except (KeyError, TypeError, AttributeError) as error:
        why = "each expectation needs kwargs and meta with name and wants, each $PARAMETER a value"
        raise _broken(name, f"{error} is missing or misplaced; {why}") from error
    if len({rule.name for rule in rules}) < len(rules):
        raise _broken(name, "two expectations have the same meta.name")
    return Suite(name, rules, content)


def _judge_suite(
    context: "EphemeralDataContext", suite: Suite, frame: pl.DataFrame, parameters: Parameters
) -> Iterator[Expectation]:
    results = _validate(context, suite, frame, parameters)
    for rule in suite.rules:
        result = results[rule.name]
        observed, segment = _observed(rule, result.result, frame)
        yield Expectation(
            suite.name, rule.name, result.success is True, observed, rule.threshold(parameters), segment
        )


def _validate(
    context: "EphemeralDataContext", suite: Suite, frame: pl.DataFrame, parameters: Parameters
) -> "dict[str, ExpectationValidationResult]":
    """Run the suite through a checkpoint that renders its page; results by name, one for each rule."""
    import great_expectations as gx  # noqa: PLC0415 - see the module's docstring
    from great_expectations.checkpoint import UpdateDataDocsAction  # noqa: PLC0415

    name = suite.name
    try:
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        definition = gx.ValidationDefinition(
            name=name, data=asset.add_batch_definition_whole_dataframe(name), suite=_load(context, suite)
        )
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(definition)],
            actions=[UpdateDataDocsAction(name="data_docs")],
        )
        run = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": frame.to_pandas()}, expectation_parameters=dict(parameters)
        )
    except gx.exceptions.GreatExpectationsError as error:
        raise _broken(name, str(error)) from error
    (outcome,) = run.run_results.values()
    results = {result.expectation_config.meta["name"]: result for result in outcome.results}
    if set(results) != {rule.name for rule in suite.rules}:
        raise _broken(name, "not every expectation was judged")
    for rule_name, result in results.items():
        if trouble := next(_exceptions(result.exception_info), None):
            raise _broken(name, f"{rule_name} could not be judged ({trouble})")
    return results


def _load(context: "EphemeralDataContext", suite: Suite) -> "ExpectationSuite":
    """Build the suite and compare it with its file: unknown types and severities are dropped with a log line."""
    import great_expectations as gx  # noqa: PLC0415

    try:
        built = gx.ExpectationSuite(**suite.content)
    except (TypeError, ValueError, gx.exceptions.GreatExpectationsError) as error:
        raise _broken(suite.name, " ".join(str(error).split())) from error
    kept = {expectation.meta["name"] for expectation in built.expectations}
    if lost := [rule.name for rule in suite.rules if rule.name not in kept]:
        raise _broken(suite.name, f"Great Expectations does not know the type or severity of {', '.join(lost)}")
    return context.suites.add(built)


def _open_context(docs_dir: Path) -> "EphemeralDataContext":
    """Import Great Expectations and open a context of its own: no analytics, no bars, one local site."""
    # Whoever handles keys and signed URLs reports nothing, unless the user turned it on.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        # Python's own, for a module that Great Expectations imports.
        warnings.filterwarnings("ignore", "module 'sre_constants' is deprecated", DeprecationWarning)
        import great_expectations as gx  # noqa: PLC0415
        from great_expectations.data_context.types.base import (  # noqa: PLC0415
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs_dir.resolve()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"data_docs": site},
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _observed(rule: Rule, result: Mapping[str, Any], frame: pl.DataFrame) -> tuple[str, str | None]:
    """What was seen, in words, and in which segment: of the facts the worst value, of the verdicts how many rows."""
    if "segment" in frame.columns and {"min_value", "max_value"} & rule.kwargs.keys():
        return _worst(rule, frame)
    if mismatched := result.get("details", {}).get("mismatched"):
        return "; ".join(f"{kind} {', '.join(names)}" for kind, names in mismatched.items()), None
    if "unexpected_count" not in result:
        return _number(result["observed_value"]), None
    count, rows = result["unexpected_count"], result["element_count"]
    if not count:
        return f"0 of {rows} rows otherwise", None
    first = frame.row(result["partial_unexpected_index_list"][0], named=True)
    where = f", first in row {first[_ROW]}" if _ROW in first else ""
    return f"{count} of {rows} rows otherwise{where}", first.get("segment")


def _worst(rule: Rule, facts: pl.DataFrame) -> tuple[str, str | None]:
    """The value nearest to its limit or furthest beyond it; the first such row, so overall before a segment."""
    column = rule.kwargs["column"]
    known = facts.filter(pl.col(column).is_not_null())
    if known.is_empty():
        return "nothing", None
    worst = known.sort(column, descending="max_value" in rule.kwargs, maintain_order=True).row(0, named=True)
    return _number(worst[column]), worst["segment"]


def _parameters_in(value: object) -> Iterator[str]:
    """The names of all ``{"$PARAMETER": name}`` inside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$PARAMETER":
                yield inner
            else:
                yield from _parameters_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parameters_in(inner)


def _exceptions(info: object) -> Iterator[str]:
    """What went wrong in an expectation; Great Expectations tells it flat, or once per metric."""
    if isinstance(info, dict):
        if info.get("raised_exception"):
            yield str(info.get("exception_message"))
        for inner in info.values():
            yield from _exceptions(inner)


def _number(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them" if len(value) > 3 else ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def _broken(suite: str, why: str) -> SuiteError:
    return SuiteError(f"suite {suite}: {why}; mend expectations/{suite}.json, nothing passes a broken suite")

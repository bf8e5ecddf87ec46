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
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

Parameters = Mapping[str, float | int | None]

WITHHELD = frozenset({"message"})
"""Columns of the verdict schema that are not handed over: the vendor's text may quote a URL."""

PART_ROWS = 200_000
"""Rows handed over at once; more make pages fewer and memory larger."""

_ONE_AT_A_TIME = threading.Lock()  # Great Expectations keeps one current context per process


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation as its file has it; ``wants`` are words for its threshold, parameters in braces."""

    name: str
    wants: str
    kwargs: dict[str, Any]

    @property
    def uses(self) -> set[str]:
        """The parameters that its words or its arguments name."""
        said = {field for _, field, _, _ in Formatter().parse(self.wants) if field}
        return said.union(_values_of("$PARAMETER", self.kwargs))

    def threshold(self, parameters: Parameters) -> str:
        """What is wanted, in words; a limit that is None is no limit."""
        limits = {name: parameters[name] for name in self.uses}
        if None in limits.values():
            return "no limit"
        return self.wants.format(**{name: _number(limit) for name, limit in limits.items()})


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite's file: its rules in order, and its content as Great Expectations takes it."""

    name: str
    rules: tuple[Rule, ...]
    content: dict[str, Any]


def judge(
    verdicts: pl.DataFrame | pl.LazyFrame,
    facts: pl.DataFrame,
    parameters: Parameters,
    docs_dir: Path,
    suites: Traversable | None = None,
    part_rows: int = PART_ROWS,
) -> tuple[Expectation, ...]:
    """Judge both frames and write ``docs_dir/index.html``. Takes seconds: call it in a thread.

    Of ``verdicts`` only the columns of the verdict schema are looked at, whatever else it holds; no more than
    ``part_rows`` of them are in memory: each part must keep the whole suite and has a page. ``suites``
    is a folder with ``verdicts.json`` and ``gate.json``; the package's own by default.

    Raises:
        SuiteError: a suite can't be read, has lost expectations, or could not be judged as written.

    """
    folder = suites or resources.files("s2v_tasks.expectations")
    loaded = [read_suite(folder, name, parameters) for name in SUITES]
    names = verdicts.lazy().collect_schema().names()
    own = verdicts.lazy().select(name for name in SCHEMA if name in names and name not in WITHHELD)
    judged: list[Expectation] = []
    with _ONE_AT_A_TIME:
        context = _open_context(docs_dir)
        for suite, frame, size in zip(loaded, (own, facts.lazy()), (part_rows, None), strict=True):
            results = _judged(context, suite, frame, parameters, size)
            for rule in suite.rules:
                success, threshold = results[rule.name]["success"], rule.threshold(parameters)
                observed, segment = _observed(rule, results[rule.name], frame)
                judged.append(Expectation(suite.name, rule.name, success, observed, threshold, segment))
    return tuple(judged)


def read_suite(folder: Traversable, name: str, parameters: Parameters) -> Suite:
    """Read ``<name>.json`` and check all that can be checked without Great Expectations.

    Raises:
        SuiteError: missing, not JSON, empty, a rule without its words, or a parameter that has no value.

    """
    try:
        content = json.loads(folder.joinpath(f"{name}.json").read_text(encoding="utf-8"))
        rules = tuple(
            Rule(item["meta"]["name"], item["meta"]["wants"], item["kwargs"])
            for item in content["expectations"]
        )
        missing = {used for rule in rules for used in rule.uses} - parameters.keys()
    except OSError as error:
        raise _broken(name, f"the file can't be read ({type(error).__name__})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _broken(name, f"it is not JSON ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        why = "it must hold expectations, each with kwargs and a meta with name and wants"
        raise _broken(name, f"{why} ({type(error).__name__}: {error})") from error
    if not rules:
        raise _broken(name, "it has no expectations")
    if len({rule.name for rule in rules}) < len(rules):
        raise _broken(name, "two of its expectations have the same name")
    if missing:
        raise _broken(name, f"it uses parameters that nobody gives: {', '.join(sorted(missing))}")
    return Suite(name, rules, content)


def _judged(
    context: "EphemeralDataContext",
    suite: Suite,
    frame: pl.LazyFrame,
    parameters: Parameters,
    part_rows: int | None,
) -> dict[str, dict[str, Any]]:
    """What came of each rule, by name, over all parts of the frame; None: it is one part."""
    loaded = _load(context, suite)
    height = frame.select(pl.len()).collect(engine="streaming").item()
    wanted = int(parameters["rows"] or 0)
    size, total = part_rows or max(height, 1), height if part_rows is None else max(height, wanted)
    merged: dict[str, dict[str, Any]] = {}
    for first in range(0, max(total, 1), size):
        name = suite.name if total <= size else f"{suite.name} from row {first}"
        given = {**parameters, "rows_here": max(0, min(wanted - first, size))}
        results = _validate(context, suite, loaded, name, frame.slice(first, size).collect(), given)
        for rule in suite.rules:
            told = results[rule.name]
            part = {**told.result, "success": told.success is True}
            merged[rule.name] = _merged(merged[rule.name], part, first) if first else part
    return merged


def _merged(whole: dict[str, Any], part: dict[str, Any], first: int) -> dict[str, Any]:
    """What holds of two parts; ``first`` is the row that the second begins with. Counts add up."""
    told = dict(part if whole["success"] and not part["success"] else whole)
    told["success"] = whole["success"] and part["success"]
    for count in ("unexpected_count", "element_count", "observed_value"):
        if isinstance(whole.get(count), int):
            told[count] = whole[count] + part[count]
    if indices := part.get(_INDICES):
        told[_INDICES] = whole.get(_INDICES) or [first + index for index in indices]
    return told


_INDICES = "partial_unexpected_index_list"


def _validate(
    context: "EphemeralDataContext",
    suite: Suite,
    loaded: "ExpectationSuite",
    name: str,
    frame: pl.DataFrame,
    parameters: Parameters,
) -> "dict[str, ExpectationValidationResult]":
    """Run the suite through a checkpoint that renders its page; results by name, one for each rule."""
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
            actions=[UpdateDataDocsAction(name="data_docs")],
            # A wrong value in the verdicts may be anything, a URL too: their page only counts them.
            result_format={"result_format": "SUMMARY", "exclude_unexpected_values": suite.name == SUITES[0]},
        )
        run = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": frame.to_pandas()}, expectation_parameters=dict(parameters)
        )
        context.data_sources.delete(name)  # with the rows that it holds
    except (TypeError, ValueError, GreatExpectationsError) as error:
        raise _broken(suite.name, f"Great Expectations refuses it ({error})") from error
    (validated,) = run.run_results.values()
    results = {config.meta["name"]: r for r in validated.results if (config := r.expectation_config)}
    for rule in suite.rules:
        if rule.name not in results:
            raise _broken(suite.name, f"{rule.name} was not judged")
        trouble = results[rule.name].exception_info
        if any(_values_of("raised_exception", trouble)):
            said = "; ".join(filter(None, _values_of("exception_message", trouble)))
            raise _broken(suite.name, f"{rule.name} could not be judged ({said})")
    return results


def _load(context: "EphemeralDataContext", suite: Suite) -> "ExpectationSuite":
    """Build the suite and compare it with its file: what has an unknown type or severity is only logged."""
    import great_expectations as gx
    from great_expectations.exceptions.exceptions import GreatExpectationsError

    try:
        built = gx.ExpectationSuite(**suite.content)
    except (TypeError, ValueError, GreatExpectationsError) as error:
        raise _broken(suite.name, f"Great Expectations refuses it ({error})") from error
    kept = {(expectation.meta or {}).get("name") for expectation in built.expectations}
    if lost := [rule.name for rule in suite.rules if rule.name not in kept]:
        raise _broken(suite.name, f"type or severity is unknown of: {', '.join(lost)}")
    return context.suites.add(built)


def _open_context(docs_dir: Path) -> "EphemeralDataContext":
    """Import Great Expectations and open a context of its own: no analytics, no bars, one local site."""
    # Whoever handles keys and signed URLs reports nothing, unless the user turned it on.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        # Python's own, for two modules that Great Expectations imports.
        warnings.filterwarnings("ignore", "module 'sre_", DeprecationWarning)
        import great_expectations as gx
        from great_expectations.data_context.types import base
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs_dir.resolve()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(),
        data_docs_sites={"data_docs": site},
        progress_bars=base.ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _observed(rule: Rule, result: Mapping[str, Any], frame: pl.LazyFrame) -> tuple[str, str | None]:
    """What was seen, and in which segment: of the facts the worst value, of the verdicts how many rows."""
    limits = {"min_value", "max_value"} & rule.kwargs.keys()
    if limits and "segment" in frame.collect_schema() and "row_condition" not in rule.kwargs:
        return _worst(rule.kwargs["column"], frame.collect(), largest="max_value" in limits)
    if mismatched := result.get("details", {}).get("mismatched"):
        return "; ".join(f"{kind} {', '.join(names)}" for kind, names in mismatched.items()), None
    if "unexpected_count" not in result:
        seen = result.get("observed_value")
        return (f"{len(seen)} in all" if isinstance(seen, list) else _number(seen)), None
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
    return _number(worst[column]), worst["segment"]


def _values_of(key: str, inside: object) -> Iterator[Any]:
    """What ``key`` stands for, wherever it is in nested dictionaries and lists."""
    if isinstance(inside, dict):
        if key in inside:
            yield inside[key]
        inside = list(inside.values())
    if isinstance(inside, list):
        for inner in inside:
            yield from _values_of(key, inner)


def _number(value: object) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _broken(suite: str, why: str) -> SuiteError:
    return SuiteError(
        f"suite {suite}: {' '.join(why.split())}; nothing passes a broken suite, mend {suite}.json"
    )

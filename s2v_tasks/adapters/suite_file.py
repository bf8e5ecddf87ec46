"""Suite files: reads an expectation suite and checks all that can be checked without Great Expectations."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from string import Formatter
from typing import Any

from s2v_tasks.errors import SuiteError

Parameters = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation of a suite's file; ``wants`` describes its threshold, with parameters in braces."""

    name: str
    wants: str
    kwargs: dict[str, Any]

    @property
    def uses(self) -> set[str]:
        """The parameters that its description or its arguments name."""
        named = {field for _, field, _, _ in Formatter().parse(self.wants) if field}
        return named.union(values_of("$PARAMETER", self.kwargs))

    def threshold(self, parameters: Parameters) -> str:
        """The threshold as text; a limit of None is no limit."""
        limits = {name: parameters[name] for name in self.uses}
        if None in limits.values():
            return "no limit"
        return self.wants.format(**{name: number_text(limit) for name, limit in limits.items()})


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite's file: its rules in order, and the content for Great Expectations."""

    name: str
    rules: tuple[Rule, ...]
    content: dict[str, Any]


def read_suite(folder: Traversable, name: str, parameters: Parameters) -> Suite:
    """Read ``<name>.json`` and check all that can be checked without Great Expectations.

    Raises:
        SuiteError: The file is missing, not JSON or empty, or a rule lacks its description or a parameter.
    """
    try:
        content = json.loads(folder.joinpath(f"{name}.json").read_text(encoding="utf-8"))
        rules = tuple(
            Rule(item["meta"]["name"], item["meta"]["wants"], item["kwargs"])
            for item in content["expectations"]
        )
        missing = {used for rule in rules for used in rule.uses} - parameters.keys()
    except OSError as error:
        raise broken_suite(name, f"the file can't be read ({type(error).__name__})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise broken_suite(name, f"it is not JSON ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        why = "it must hold expectations, each with kwargs and a meta with name and wants"
        raise broken_suite(name, f"{why} ({type(error).__name__}: {error})") from error
    if not rules:
        raise broken_suite(name, "it has no expectations")
    if len({rule.name for rule in rules}) < len(rules):
        raise broken_suite(name, "two of its expectations have the same name")
    if missing:
        raise broken_suite(name, f"it uses unknown parameters: {', '.join(sorted(missing))}")
    return Suite(name, rules, content)


def values_of(key: str, inside: object) -> Iterator[Any]:
    """The values of ``key`` anywhere in nested dictionaries and lists."""
    if isinstance(inside, dict):
        if key in inside:
            yield inside[key]
        inside = list(inside.values())
    if isinstance(inside, list):
        for inner in inside:
            yield from values_of(key, inner)


def number_text(value: object) -> str:
    """A number with at most six decimals."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def broken_suite(suite: str, why: str) -> SuiteError:
    """The error for a suite that can't be used."""
    return SuiteError(
        f"suite {suite}: {' '.join(why.split())}; nothing passes a broken suite. Fix {suite}.json"
    )

"""The forms: every field of the three flows says what it is, what it takes, and what it is if left alone."""

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from s2v_tasks.flows.curate import curate
from s2v_tasks.flows.gate import gate
from s2v_tasks.flows.pipeline import pipeline

FLOWS: tuple[Flow[..., Any], ...] = (curate, gate, pipeline)
MOST_AT_ONCE = 10
"""More fields at one level would be no form but a questionnaire."""


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field with its path and whether it is required; a group is a field, and so is what is in it."""

    def below(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
        for name, field in node["properties"].items():
            group = next((found for found in map(target, options(field)) if found), {})
            # A description that the group has itself is not repeated where it is used.
            yield f"{path}{name}", {**group, **field}, name in node.get("required", [])
            if "properties" in group:
                yield from below(group, f"{path}{name}.")

    def target(option: dict[str, Any]) -> dict[str, Any]:
        name = option.get("$ref", "").removeprefix("#/definitions/")
        return schema["definitions"][name] if name else {}

    yield from below(schema, "")


def options(field: dict[str, Any]) -> list[dict[str, Any]]:
    """What a field may be, besides empty."""
    return [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_says_what_it_is(flow: Flow[..., Any]) -> None:
    """A title of its own and a description; a required one and an empty one show an example."""
    found = dict.fromkeys([])
    for path, field, required in fields(flow.parameters.model_dump()):
        name = path.rpartition(".")[2]
        assert field.get("title", name) != name, f"{path} has no title"
        assert field.get("description"), f"{path} has no description"
        assert required != ("default" in field), path
        if required or field["default"] is None:
            assert field.get("examples"), f"{path} has no example"
        found[path] = None
    assert len(found) >= 3


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_keeps_out_what_it_can(flow: Flow[..., Any]) -> None:
    """Numbers have bounds, texts are not empty, choices are lists of choices; groups refuse unknown names."""
    for path, field, _ in fields(flow.parameters.model_dump()):
        for option in options(field):
            kind, keys = option.get("type"), option.keys()
            if kind in {"number", "integer"}:
                assert keys & {"minimum", "exclusiveMinimum"}, f"{path} has no lower bound"
            if kind == "string":
                assert keys & {"minLength", "pattern", "enum", "format"}, f"{path} takes an empty text"
            if kind == "object":
                assert field["additionalProperties"] is False, path


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_form_is_grouped(flow: Flow[..., Any]) -> None:
    """At no level more fields than one takes in at a glance."""
    schema = flow.parameters.model_dump()
    levels = [schema, *schema.get("definitions", {}).values()]
    assert max(len(level.get("properties", {})) for level in levels) <= MOST_AT_ONCE


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budget_usd": -1.0}, "budget_usd: Input should be greater than 0"),
        (
            {"thresholds": {"min_pass_rate": 2}},
            "thresholds.min_pass_rate: Input should be less than or equal",
        ),
        (
            {"spending": {"ledger": "postgresql://u:s3cret@h/d"}},
            "put a URL with a password in S2V_LEDGER_URL",
        ),
        (
            {"spending": {"ledger": "mysql://h/s3cret"}},
            "a ledger's URL reads sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        ),
        ({"run_id": "../x"}, "run_id: String should match pattern"),
    ],
    ids=str,
)
def test_a_bad_value_in_code_is_named(changed: dict[str, Any], words: str) -> None:
    """Called as a function with a bad value, a flow says which and why before it begins, and no secret."""
    with pytest.raises(ParameterTypeError) as refused:
        curate.validate_parameters({"candidates": "c.parquet", "out": "out", "budget_usd": 1.0, **changed})
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)

"""The forms: every field of the three flows says what it is, what it takes, and what it is if left alone."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from s2v_tasks.flows.curate import curate
from s2v_tasks.flows.gate import gate
from s2v_tasks.flows.pipeline import pipeline

from s2v_tasks.settings import GROUPS, CurateParameters
from s2v_tasks.settings.fields import declared
from s2v_tasks.settings.moved import MOVED

FLOWS: tuple[Flow[..., Any], ...] = (curate, gate, pipeline)
ROOT = Path(__file__).parents[1]
MOST_OPEN = 24
"""Fields that the form of `curate` shows before anything is opened."""


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


def leaves(flow: Flow[..., Any]) -> list[str]:
    """The paths of the fields that hold a value, in the order of the form."""
    found = [path for path, _, _ in fields(flow.parameters.model_dump())]
    return [path for path in found if not any(other.startswith(f"{path}.") for other in found)]


@pytest.mark.parametrize("flow", [curate, pipeline], ids=lambda flow: flow.name)
def test_a_form_is_short_and_has_one_group_that_is_closed(flow: Flow[..., Any]) -> None:
    """All but a few fields are behind a switch that is set to None; the rest is in groups of up to seven."""
    shown = [path for path in leaves(flow) if not path.startswith("advanced.")]
    assert len(shown) <= MOST_OPEN
    groups = Counter(path.rpartition(".")[0] for path in shown)
    assert max(groups.values()) <= 7
    schema = flow.parameters.model_dump()
    assert schema["properties"]["advanced"]["default"] is None
    places = {name: field["position"] for name, field in schema["properties"].items()}
    assert tuple(sorted(set(places) & set(GROUPS), key=lambda name: places[name])) == GROUPS
    assert max(places, key=lambda name: places[name]) == "advanced"


@pytest.mark.parametrize("page", ["docs/guides/prefect.md", "CHANGELOG.md"])
def test_the_pages_count_the_fields(page: str) -> None:
    """Of the form of `curate`: those that it shows, and those behind the switch."""
    counted = re.search(r"(\d+) fields in four groups\D+?(\d+) more", (ROOT / page).read_text("utf-8"))
    advanced = [path for path in leaves(curate) if path.startswith("advanced.")]
    assert counted
    assert (int(counted[1]), int(counted[2])) == (len(leaves(curate)) - len(advanced), len(advanced))


def test_the_form_shows_what_is_declared() -> None:
    """Its fields are those of the parameters, with their titles and descriptions, and no moved one."""
    declared_fields = {".".join(one.path): one for one in declared(CurateParameters)}
    assert set(leaves(curate)) == set(declared_fields)
    for path, field, _ in fields(curate.parameters.model_dump()):
        if path in declared_fields:
            one = declared_fields[path]
            assert (field["title"], field["description"]) == (one.title, one.description)


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_name_is_taken_and_not_shown(old: str) -> None:
    """The schema that the server validates by takes the old names of each group, and no other unknown one."""
    assert old not in leaves(curate)
    place, _, name = old.rpartition(".")
    if place and place != "output":
        group = curate.parameters.model_dump()["definitions"][place.title()]
        assert group["additionalProperties"] is False
        (pattern,) = group["patternProperties"]
        assert re.search(pattern, name)
        assert not re.search(pattern, f"{name}s")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget_usd": -1.0}, "budget_usd: Input should be greater than 0"),
        (
            {"thresholds": {"min_pass_rate": 2}},
            "thresholds.min_pass_rate: Input should be less than or equal",
        ),
        (
            {"advanced": {"ledger": "postgresql://u:s3cret@h/d"}},
            "put a URL with a password in S2V_LEDGER_URL",
        ),
        (
            {"advanced": {"ledger": "mysql://h/s3cret"}},
            "a ledger's URL reads sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        ),
        ({"advanced": {"run_id": "../x"}}, "advanced.run_id: String should match pattern"),
    ],
    ids=str,
)
def test_a_bad_value_in_code_is_named(changed: dict[str, Any], message: str) -> None:
    """Called as a function with a bad value, a flow says which and why before it begins, and no secret."""
    with pytest.raises(ParameterTypeError) as refused:
        curate.validate_parameters({"candidates": "c.parquet", "out": "out", "budget_usd": 1.0, **changed})
    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)

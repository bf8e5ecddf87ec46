"""``s2v curate --schema``: a program that checks its options against it has them accepted by the command."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from s2v_tasks.cli.curate import app
from s2v_tasks.settings import CurateParameters
from s2v_tasks.settings.fields import declared

NOT_OF_A_RUN = {"--schema", "--json", "--debug", "--help"}
REQUIRED = {"out": "o", "budget-usd": 1}


@pytest.fixture
def schema(s2v: Callable[..., tuple[int, str, str]]) -> dict[str, Any]:
    """What the command prints."""
    status, out, _ = s2v("curate", "--schema")
    assert status == 0
    found = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def test_it_has_every_option_and_no_other(schema: dict[str, Any]) -> None:
    """By the names of the command line, with the defaults of the command."""
    command: Any = get_command(app)
    options = {o.opts[0]: o for o in command.params if o.opts[0].startswith("--") and not o.hidden}
    assert {f"--{name}" for name in schema["properties"]} == set(options) - NOT_OF_A_RUN
    assert schema["required"] == [n for n in schema["properties"] if options[f"--{n}"].required]
    for name, one in schema["properties"].items():
        assert (one.get("default") or None) == (options[f"--{name}"].default or None), name


@pytest.mark.parametrize(
    ("options", "valid"),
    [
        ({"min-pass-rate": 0.6, "no-screen": True, "allow-port": [81, 82], "dedupe": "url"}, True),
        ({"min-pass-rate": 1.6}, False),
        ({"min-pass-rate": "much"}, False),
        ({"sample": 1.5}, False),
        ({"sample": None}, False),
        ({"dedupe": "pixels"}, False),
        ({"allow-port": 81}, False),
        ({"run-id": "../x"}, False),
        ({"min_pass_rate": 0.6}, False),
        ({"debug": True}, False),
        ({"budget-usd": 0}, False),
    ],
)
def test_it_refuses_what_the_command_refuses(
    schema: dict[str, Any], options: dict[str, Any], valid: bool
) -> None:
    """Types, bounds, choices, unknown names."""
    checker = jsonschema.Draft202012Validator(schema)
    assert checker.is_valid(REQUIRED | options) == valid


def test_bounds_are_the_parameters_own(schema: dict[str, Any]) -> None:
    """Every option that takes a value has a type, and the description of its field."""
    for one in declared(CurateParameters):
        if one.flag:
            assert schema["properties"][one.flag.removeprefix("--")]["description"] == one.help
    kinds = {one["type"] for one in schema["properties"].values()}
    assert kinds == {"string", "number", "integer", "boolean", "array"}

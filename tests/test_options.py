"""The command's defaults are those of the forms: both say what a run does if nothing else is said."""

import re
from typing import Any

import pytest
from typer.main import get_command

from s2v_tasks.cli import app
from s2v_tasks.settings import Output, Screening, Source, Spending, Thresholds

FIELDS = {
    name: field.default
    for group in (Source, Screening, Spending, Output, Thresholds)
    for name, field in group.model_fields.items()
}
ELSEWHERE = {
    "ledger", "no_screen", "allow_port", "candidates", "query", "out", "budget_usd", "run_id", "new_run",
    "publish", "run_dir", "debug", "help",
}  # fmt: skip
"""What is spelt in another way in a form, or is in none of its groups."""


def defaults(command: str) -> dict[str, Any]:
    """What each option is if left out: its default, or what its help says instead."""
    commands: dict[str, Any] = get_command(app).commands
    found = {}
    for option in commands[command].params:
        told = re.search(r"\[default: (.*)\]$", getattr(option, "help", None) or "")
        text = told[1] if told and option.default is None else option.default
        found[option.name] = None if text in {"no limit", "never"} else text
    return found


@pytest.mark.parametrize("command", ["curate", "estimate", "gate"])
def test_an_option_that_is_left_out_is_what_the_form_has(command: str) -> None:
    """Held against each other, for the command must not import the groups before it runs."""
    found = {name: value for name, value in defaults(command).items() if name not in ELSEWHERE}
    assert found
    assert set(found) <= set(FIELDS)
    for name, value in found.items():
        wanted = FIELDS[name]
        assert (float(value) if isinstance(wanted, float) else value) == wanted, name

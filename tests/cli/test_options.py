"""A parameter is declared once: command, help, docs, the gate's facts and its suite follow the field."""

import json
import re
from dataclasses import fields
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from s2v_tasks.cli import reference
from s2v_tasks.cli.app import COMMANDS
from s2v_tasks.cli.curate import app as curate
from s2v_tasks.cli.estimate import MATTERS
from s2v_tasks.cli.estimate import app as estimate
from s2v_tasks.cli.gate import app as gate
from s2v_tasks.cli.options import Debug, Given, takes
from s2v_tasks.errors import UsageError
from s2v_tasks.models import Facts
from s2v_tasks.settings import CurateParameters, EstimateParameters
from s2v_tasks.settings.fields import Declared, declared
from s2v_tasks.settings.moved import CHOICES, MOVED

ROOT = Path(__file__).parents[2]
PARAMETERS = {".".join(one.path): one for one in declared(CurateParameters)}
LIMITS = {path: one for path, one in PARAMETERS.items() if one.limit}
WITHOUT_OPTION = {"candidates", "spending.credentials", "spending.ledger_block", "advanced.approve_within_h"}
"""An argument; names of blocks, which a command line has no use for; how long Prefect's UI waits."""


def shown(app: typer.Typer) -> dict[str, Any]:
    """The options of a verb's help, by their spelling."""
    command: Any = get_command(app)
    return {option.opts[0]: option for option in command.params if option.opts and not option.hidden}


@pytest.mark.parametrize(
    ("app", "paths"),
    [(curate, set(PARAMETERS)), (estimate, set(MATTERS)), (gate, {*LIMITS, "advanced.data_docs"})],
    ids=["curate", "estimate", "gate"],
)
def test_an_option_is_what_its_field_declares(app: typer.Typer, paths: set[str]) -> None:
    """Spelling, panel, default and help are the field's; no other parameter of a run is an option."""
    options = shown(app)
    for path in paths - WITHOUT_OPTION:
        one = PARAMETERS[path]
        option = options.pop(one.flag)
        assert option.rich_help_panel == one.group
        assert one.description in option.help or one.flag_value not in (None, True), path
        if one.flag_value is None and not one.field.is_required():
            assert (option.default or None) == (one.field.default or None), path
        assert option.required == (one.field.is_required() and app is curate), path
        for more in one.more_options:
            bare = options.pop(more.flag)
            assert (bare.rich_help_panel, bare.help, bare.is_flag) == (one.group, more.help, True)
    assert set(options) <= {
        "candidates", "run_dir", "--query", "--new-run", "--publish", "--again", "--debug", "--help", "ctx",
        "--schema", "--json",
    }  # fmt: skip


def test_only_a_few_parameters_have_no_option() -> None:
    """A new field is an option unless the code says otherwise."""
    assert {path for path, one in PARAMETERS.items() if one.flag is None} == WITHOUT_OPTION


def read(*arguments: str) -> Given:
    """What the options of a run are read as."""
    found: list[Given] = []

    def verb(*, given: Given, debug: Debug = False) -> None:
        found.append(given)

    app = typer.Typer()
    app.command()(takes(CurateParameters)(verb))
    get_command(app)(["--out", "o", "--budget-usd", "1", *arguments], standalone_mode=False)
    return found[0]


def other(one: Declared) -> tuple[str, Any]:
    """A value that is not the default: as it is typed, and as the field has it."""
    examples = {
        "advanced.limit": 5, "advanced.seed": 6, "advanced.allow_ports": (81,), "advanced.runner": "dask",
        "advanced.ledger": None, "source.sample": 3, "screening.dedupe": "bytes",
        "screening.faces": "order",
        "thresholds.publish": "within_budget",
        "spending.on_lost_response": "assume-paid", "advanced.account": "a", "advanced.run_id": "r",
    }  # fmt: skip
    path = ".".join(one.path)
    kind = str(one.field.annotation)
    value = examples.get(path, 0.25 if "float" in kind else 7 if "int" in kind else "text")
    return str(value[0] if isinstance(value, tuple) else value), value


@pytest.mark.parametrize("path", sorted(set(PARAMETERS) - WITHOUT_OPTION - {"out", "advanced.ledger"}))
def test_what_is_typed_arrives_in_its_field(path: str) -> None:
    """Each option sets its field and no other; what is left out is not set at all."""
    one = PARAMETERS[path]
    typed, value = other(one)
    given = read(str(one.flag), *([] if one.flag_value is not None else [typed]))
    parameters = given.as_model(CurateParameters, candidates="c")
    wanted = value if one.flag_value is None else one.flag_value
    group = parameters if len(one.path) == 1 else getattr(parameters, one.path[0])
    assert getattr(group, one.name) == wanted != one.field.default
    if group is not parameters:
        assert group.model_fields_set == {one.name}
    assert given.warnings == []


SPELLINGS = {
    old: "--" + old.rpartition(".")[2].replace("_", "-")
    for old, new in MOVED.items()
    if old.rpartition(".")[2] != new.rpartition(".")[2] and PARAMETERS[new].flag
}


@pytest.mark.parametrize("old", sorted(SPELLINGS))
def test_an_old_spelling_is_taken_with_a_warning(old: str) -> None:
    """It sets the new field, the warning names the new option, and the help does not show it."""
    one = PARAMETERS[MOVED[old]]
    flag = SPELLINGS[old]
    typed, value = other(one)
    given = read(flag, *([] if old in CHOICES else [typed]))
    parameters = given.as_model(CurateParameters, candidates="c")
    assert getattr(getattr(parameters, one.path[0]), one.name) == value
    assert given.warnings == [f"{flag} is now {one.flag}; the old spelling will go"]
    assert flag not in shown(curate)


@pytest.mark.parametrize("before", [[], ["--publish-partial"], ["--allow-partial"]], ids=str)
def test_a_bare_option_of_another_value_sets_it(before: list[str]) -> None:
    """Passing segments imply within budget, so that option counts if both are given."""
    parameters = read("--publish-passing-segments", *before).as_model(CurateParameters, candidates="c")
    assert parameters.thresholds.publish == "passing_segments"


def test_a_bad_value_is_named_by_its_option() -> None:
    """The line has the option as it is typed, not the field."""
    for arguments, message in [
        (("--header-cache-ttl-h", "-1"), "--header-cache-ttl-h: Input should be greater"),
        (("--allow-port", "0"), "--allow-port: Input should be greater"),
        (("--fresh-for-h", "-1"), "--header-cache-ttl-h: Input should be greater"),
        (("--no-screen", "--dedupe", "bytes"), "--dedupe: Value error, bytes can't be compared"),
        (("--run-id", "../x"), "--run-id: String should match"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            read(*arguments).as_model(CurateParameters, candidates="c")


@pytest.mark.parametrize("path", sorted(LIMITS))
def test_a_threshold_is_what_its_expectation_checks(path: str) -> None:
    """The suite compares the declared fact from the declared side, says so, and never passes a null."""
    one, suite = (
        LIMITS[path],
        json.loads(resources.files("s2v_tasks.expectations").joinpath("gate.json").read_text()),
    )
    assert one.limit is not None
    parameter = one.limit.parameter or one.name
    assert one.limit.fact in {field.name for field in fields(Facts)}
    of_fact = [e for e in suite["expectations"] if e["kwargs"].get("column") == one.limit.fact]
    side = "min_value" if one.limit.side == "at least" else "max_value"
    (limited,) = [e for e in of_fact if e["kwargs"].get(side) == {"$PARAMETER": parameter}]
    assert limited["meta"]["wants"] == f"{one.limit.side} {{{parameter}}}"
    assert any(e["type"] == "expect_column_values_to_not_be_null" for e in of_fact)


def test_every_limit_of_the_suite_is_a_declared_threshold() -> None:
    """An expectation with a limit of its own has no option."""
    text = resources.files("s2v_tasks.expectations").joinpath("gate.json").read_text()
    used = set(re.findall(r'"\$PARAMETER": "(\w+)"', text))
    declared_limits = {one.limit.parameter or one.name for one in LIMITS.values() if one.limit}
    assert used - {"rows_in_scopes", "scopes"} == declared_limits


def test_every_option_that_the_docs_name_is_one() -> None:
    """What a docs page says to type is accepted, by its present name."""
    commands: list[Any] = [get_command(import_module(f"s2v_tasks.cli.{name}").app) for name in COMMANDS]
    verbs = [verb for command in commands for verb in getattr(command, "commands", {"": command}).values()]
    options = {o for verb in verbs for param in verb.params if not param.hidden for o in param.opts}
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = re.sub(OTHER_TOOLS, "", page.read_text("utf-8"), flags=re.MULTILINE)
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert named - options - OTHERS == set(), page


OTHERS = {"--help", "--pool", "--runslow", "--ci", "--min", "--resize", "--seconds", "--runs"}
"""Options of other programs that pages name."""
OTHER_TOOLS = r"^.*\b(pip|pytest|prefect (deploy|deployment|worker|server)|docker|python -m|benchmarks/).*$"


def test_the_reference_page_is_what_the_code_says() -> None:
    """It is generated: ``python -m s2v_tasks.cli.reference > docs/reference/cli.md``."""
    assert (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8") == reference.page()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_verb_says_of_itself_what_the_list_says(name: str) -> None:
    """The list does not import the verb, so it has the line too."""
    command: Any = get_command(import_module(f"s2v_tasks.cli.{name}").app)
    assert command.help.splitlines()[0] == COMMANDS[name]


def test_an_estimate_takes_what_a_run_takes() -> None:
    """Each of its options is a parameter of the estimate, and one of the run."""
    assert set(MATTERS) <= {".".join(one.path) for one in declared(EstimateParameters)} & set(PARAMETERS)

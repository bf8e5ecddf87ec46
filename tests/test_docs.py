"""The pages tell the truth: links lead somewhere, and what they list is what the code has."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import package_tree
import pytest

import s2v_tasks
from s2v_tasks import errors
from s2v_tasks.adapters.storage.run_folder import Manifest
from s2v_tasks.models import Expectation, Facts, GateReport
from s2v_tasks.settings import DashScope, Environment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
REFERENCE = ROOT / "docs" / "reference"


def text(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: Path, heading: str) -> str:
    """What is below a heading of a page, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, f"{page.name} has no heading {heading!r}"
    return found[1]


def first_cells(table: str) -> list[str]:
    """The names in the first cells of a table's rows."""
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and headings have the anchors that links name."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_and_tests_that_a_page_names_exist(page: Path) -> None:
    """A file is named from the root or from the package; a test by its words."""
    for name in re.findall(r"`([\w/]+/\w+\.py)`", text(page)):
        assert (ROOT / name).is_file() or (ROOT / "s2v_tasks" / name).is_file(), name
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`([a-z]+(?:_[a-z]+){4,})`", text(page)):
        assert f"def test_{name}" in sources or f"_{name}" in sources or name in s2v_tasks.SCHEMA, name


def test_every_page_is_linked_from_the_readme() -> None:
    """A reader starts there."""
    linked = set(re.findall(r"\]\(([\w/-]+\.md)", PAGES[0].read_text("utf-8")))
    assert linked == {p.relative_to(ROOT).as_posix() for p in PAGES[3:]} | {"CONTRIBUTING.md", "CHANGELOG.md"}


def test_the_columns_are_those_of_the_schema() -> None:
    """Names, order and types."""
    table = section(REFERENCE / "schema.md", "Columns of verdicts.parquet")
    rows = re.findall(r"^\| `(\w+)` \| (\w+)(?: \((.*?)\))? \|", table, re.MULTILINE)
    types = {"Datetime": "Datetime(time_unit='us', time_zone='UTC')"}
    assert [(name, types.get(kind, kind)) for name, kind, _ in rows] == [
        (name, repr(dtype) if dtype.is_temporal() else str(dtype)) for name, dtype in s2v_tasks.SCHEMA.items()
    ]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Pointer", set(s2v_tasks.Publication.model_fields)),
        ("Manifest", set(Manifest.model_fields)),
        ("Gate report", {f.name for f in (*fields(GateReport), *fields(Facts))} | {"thresholds", "baseline"}),
    ],
)
def test_the_fields_of_the_files_are_on_the_page(heading: str, names: set[str]) -> None:
    """None is missing, none is made up."""
    table = section(REFERENCE / "schema.md", heading)
    assert set(first_cells(table)) == names


def test_the_fields_of_an_expectation_are_on_the_page() -> None:
    """In the row of the report's expectations."""
    (row,) = re.findall(
        r"^\| `expectations` \| each .*$", (REFERENCE / "schema.md").read_text(), re.MULTILINE
    )
    assert set(re.findall(r"`(\w+)`", row)) - {"expectations"} == {f.name for f in fields(Expectation)}


def test_the_public_names_are_on_the_page() -> None:
    """Every name of ``s2v_tasks.__all__``, and no other."""
    assert set(first_cells(section(REFERENCE / "python.md", "`s2v_tasks`"))) == set(s2v_tasks.__all__)


def test_the_errors_are_on_the_page() -> None:
    """Every class of the tree below the root."""
    tree = {
        name
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.S2VError) and error is not errors.S2VError
    }
    assert set(first_cells(section(REFERENCE / "python.md", "Errors"))) == tree


def test_the_exit_statuses_are_on_the_page() -> None:
    """Every status of an error, and 0."""
    table = section(REFERENCE / "cli.md", "Exit status")
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.S2VError)]
    statuses = {error.exit_status for error in classes}
    assert {int(status) for status in re.findall(r"^\| (\d) \|", table, re.MULTILINE)} == {0} | statuses


def test_the_variables_are_on_the_page() -> None:
    """Every variable that the settings read."""
    page = (REFERENCE / "environment.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `((?:S2V|DASHSCOPE)_\w+)` \|", page, re.MULTILINE))
    assert listed == {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (DashScope, Environment)
        for name in settings.model_fields
    }


def messages() -> Iterator[str]:
    """Every text in the package's code, with ``{}`` for each value that it shows."""
    for path in (ROOT / "s2v_tasks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_to_troubleshoot_are_those_of_the_code() -> None:
    """A quoted message is the beginning of one in the code; ``...`` replaces a value."""
    table = section(ROOT / "docs" / "guides" / "prefect.md", "Troubleshooting")
    quoted = re.findall(r"^\| `([^`]+ [^`]+)` \|", table, re.MULTILINE)
    assert len(quoted) > 9
    known = list(messages())
    patterns = {text: r".*".join(map(re.escape, text.split("..."))) for text in quoted}
    assert [t for t, pattern in patterns.items() if not any(re.match(pattern, m) for m in known)] == []


def test_the_tree_is_that_of_the_package() -> None:
    """``python tests/package_tree.py`` writes it again."""
    assert package_tree.written() == package_tree.tree()

"""The architecture: arrows run down only, the domain is pure, and each outside library has its modules."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2v_tasks

PACKAGE = Path(s2v_tasks.__file__).parent
ROOT = PACKAGE.parent
FLOWS = ROOT / "flows"

PURE = [*sorted((PACKAGE / "domain").glob("*.py")), PACKAGE / "models.py", PACKAGE / "errors.py"]
FORBIDDEN = {
    "prefect", "httpx", "aiohttp", "great_expectations", "sqlalchemy", "aiosqlite", "asyncpg", "pandas",
    "asyncio", "threading", "subprocess", "socket", "urllib.request", "http", "os", "io", "pathlib",
    "tempfile", "shutil", "time", "random", "secrets", "logging",
}  # fmt: skip
IMPURE_NAMES = {"open", "print", "input", "now", "utcnow", "today", "collect", "read_bytes", "read_text"}
IMPURE_PREFIXES = ("scan_", "sink_", "read_parquet", "read_csv", "write_")
LIBRARIES = {
    "great_expectations": {"adapters/gx.py"},
    "sqlalchemy": {"adapters/database/", "adapters/storage/query.py"},
    "obstore": {"adapters/storage/object_store.py"},
    "httpx": {"adapters/http/", "adapters/prefect/", "cli/", "emulator/", "runtime/stages.py"},
    "aiohttp": {"adapters/http/"},
    "prefect": {"adapters/prefect/", "blocks.py", "cli/", "flows/", "runtime/", "tasks.py"},
    "typer": {"cli/"},
    "PIL": {"emulator/", "adapters/images/"},
    "jinja2": {"adapters/report_html.py"},
}
"""Which modules or folders import an outside library."""


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported, and every name from one, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def impure_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that read a clock, a file or a frame's data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in IMPURE_NAMES or name.startswith(IMPURE_PREFIXES):
                yield f"{name}() in line {node.lineno}"


def impurities(source: str) -> list[str]:
    """What a pure module may not do, as found in its source."""
    tree = ast.parse(source)
    bad = {m for m in imports(tree) if m in FORBIDDEN or any(m.startswith(f"{b}.") for b in FORBIDDEN)}
    return [*sorted(bad), *impure_calls(tree)]


def users_of(library: str) -> set[str]:
    """The modules of the package and the flows that import a library."""
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    files |= {f"flows/{path.name}": path for path in FLOWS.glob("*.py")}
    return {
        name
        for name, path in files.items()
        if any(m.partition(".")[0] == library for m in imports(ast.parse(path.read_text("utf-8"))))
    }


def lint_imports(folder: Path, added: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on a copy like the wheel, with lines ``added`` to modules."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "s2v_tasks", ignore=skipped)
    for mapped in ("flows", "expectations"):
        shutil.copytree(ROOT / mapped, folder / "s2v_tasks" / mapped, ignore=skipped)
    for module, line in added.items():
        with (folder / "s2v_tasks" / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", ROOT / "pyproject.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_arrows_run_down_only(tmp_path: Path) -> None:
    """The contracts of pyproject.toml hold."""
    checked = lint_imports(tmp_path, {})
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (
            "domain/rate_limit.py",
            "from s2v_tasks.adapters import clock",
            "s2v_tasks.domain.rate_limit -> s2v_tasks.adapters.clock",
        ),
        (
            "runtime/progress.py",
            "from s2v_tasks.flows import curate",
            "s2v_tasks.runtime.progress -> s2v_tasks.flows.curate",
        ),
        (
            "domain/candidate_table.py",
            "from s2v_tasks.domain import detect",
            "s2v_tasks.domain.candidate_table -> s2v_tasks.domain.detect",
        ),
    ],
)
def test_an_arrow_that_runs_up_is_found(tmp_path: Path, module: str, line: str, broken: str) -> None:
    """A pure rule imports an adapter, a lower module a flow, a stage a later one."""
    checked = lint_imports(tmp_path, {module: line})
    assert checked.returncode == 1
    assert broken in " ".join(checked.stdout.split())


@pytest.mark.parametrize("module", PURE, ids=lambda path: path.stem)
def test_the_domain_is_pure(module: Path) -> None:
    """No waiting, no file, no clock and no outside service in the rules."""
    assert impurities(module.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import httpx", ["httpx"]),
        ("def f():\n    from prefect import flow", ["prefect", "prefect.flow"]),
        ("from datetime import datetime\nx = datetime.now()", ["now() in line 2"]),
        ("x = open('a')", ["open() in line 1"]),
        ("x = frame.collect()", ["collect() in line 1"]),
        ("x = frame.lazy()\nfrom s2v_tasks.domain.candidate_table import identify", []),
    ],
)
def test_an_impure_rule_is_found(source: str, found: list[str]) -> None:
    """The check above finds what it is there to find."""
    assert impurities(source) == found


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_outside_library_is_imported_by_few_modules(library: str) -> None:
    """A reader finds what waits, spends or writes in a few places, and each place listed is one."""
    users, places = users_of(library), LIBRARIES[library]
    assert {user for user in users if not user.startswith(tuple(places))} == set()
    assert {place for place in places if not any(user.startswith(place) for user in users)} == set()

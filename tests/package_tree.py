"""The tree of the package for CONTRIBUTING.md: ``python tests/package_tree.py`` writes it there.

Each line is the first sentence of a module's docstring.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- /tree -->)", re.DOTALL)
WIDTH = 32


def tree() -> str:
    """The package's folders and modules, and the flows, a line each."""
    lines = [line for folder in (ROOT / "s2v_tasks", ROOT / "flows") for line in _lines(folder, 0)]
    return "".join(f"{line}\n" for line in lines)


def _lines(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    for module in modules:
        yield _line(module.name, module, depth + 1)
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _lines(inner, depth + 1)


def _line(name: str, module: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    sentence = re.split(r"[.?](?= |$)", docstring.splitlines()[0])[0].strip(":")
    return f"{'  ' * depth}{name}".ljust(WIDTH) + sentence


def written() -> str:
    """The tree that the page holds."""
    found = BLOCK.search(PAGE.read_text("utf-8"))
    return found[0] if found else ""


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: tree(), PAGE.read_text("utf-8")), "utf-8")

"""One term for one thing: words that the glossary's terms have replaced don't return, in code or docs."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[1]
SCANNED = ("tests", "s2v_tasks", "flows", "examples", "benchmarks", "docs", "README.md", "CONTRIBUTING.md")
OLD_WORDS: Final = re.compile(
    r"(?<![a-z])(a[ _]image|answer(s|ed|ing|ers?)?|aloud|anew|anybody|asked|books?|booked|by[ _]lot|dear"
    r"|feared|foretold|former[ _]li[fv]es?|held[ _]against|house|instants?|judg(e[ds]?|ing|ements?)"
    r"|look(s|ed)?[ _]at|mend(s|ed|ing)?|nobody(?=[ _][a-z])|pace[ds]?|(?<!--)pictures?|prefect's page"
    r"|somebody(?=[ _'])|stage[ _]behind|standings|stands?[ _]for|strangers?|told|troubles?|unspent"
    r"|whoever)(?![a-z])",
    re.IGNORECASE,
)
"""In prose and in identifiers: an underscore ends a word too."""
ALLOWED: Final = {
    "tests/test_docs_vocabulary.py": "the list itself",
    "tests/old_run.py": "a run's folder as an earlier version wrote it",
    "tests/old_ledger.py": "a ledger as an earlier version wrote it",
    "s2v_tasks/domain/format_1.py": "names of an earlier format",
    "s2v_tasks/adapters/database/migrations.py": "names of an earlier schema",
    "tests/adapters/storage/test_run_data.py": "names of an earlier format",
    "tests/adapters/database/test_migrations.py": "names of an earlier schema",
    "s2v_tasks/domain/response_rules.py": "words of the vendor's messages",
    "tests/domain/test_detect.py": "words of the vendor's messages",
}
"""Files with the old words, and why."""


def old_words(text: str) -> list[str]:
    """The old words of a text, each with its line."""
    lines = enumerate(text.splitlines(), 1)
    return [f"line {number}: {found[0]}" for number, line in lines for found in OLD_WORDS.finditer(line)]


def files() -> list[str]:
    """The code and the pages, by their paths."""
    below = [path for name in SCANNED for path in ([ROOT / name, *(ROOT / name).rglob("*")])]
    return [path.relative_to(ROOT).as_posix() for path in below if path.suffix in {".md", ".py"}]


def test_old_words_do_not_return() -> None:
    """In no file but those that hold them as data."""
    found = {name: words for name in files() if (words := old_words((ROOT / name).read_text("utf-8")))}
    assert {name: words for name, words in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set(), "no longer needed"


@pytest.mark.parametrize("text", ["It looks at a image.", "def test_nobody_answers", "Judged anew"])
def test_an_old_word_is_found(text: str) -> None:
    """The check above finds what it is there to find."""
    assert len(old_words(text)) == 2


@pytest.mark.parametrize(
    "text", ["an image", "a workspace", '"nobody"', "gen/nobody-7.jpg", "troubleshooting"]
)
def test_other_words_are_not_found(text: str) -> None:
    """A part of another word is none, nor is a sample's name."""
    assert old_words(text) == []

"""The page of reasons, held against the sets in the program."""

import re
from collections import defaultdict
from pathlib import Path

from s2v_tasks import candidates, detect, screen
from s2v_tasks.ledger import BUDGET_SPENT, RUN_STOPPED
from s2v_tasks.models import Outcome
from s2v_tasks.verdicts import SAME_CONTENT

PAGE = (Path(__file__).parents[1] / "docs" / "reasons.md").read_text("utf-8")
ROW = re.compile(r"^\| (?:`(\w+)`)? ?\| (`.*?`) \|", re.MULTILINE)


def told() -> dict[str, set[str]]:
    """The page's reasons by outcome; an empty first cell is the one above."""
    found: dict[str, set[str]] = defaultdict(set)
    outcome = ""
    for name, reasons in ROW.findall(PAGE):
        outcome = name or outcome
        found[outcome] |= set(re.findall(r"`(\w+)`", reasons))
    return found


def test_every_reason_is_on_the_page_under_its_outcome() -> None:
    """None is missing, none is made up; those that only an answer has are named below the table."""
    found = told()
    failed = {*detect.FAILED_CHECKS.values(), detect.CHECK_FAILED}
    of_answers_only = {
        rule.reason for rule in detect.RULES if rule.kind in {detect.Kind.ACCOUNT, detect.Kind.THROTTLED}
    }
    assert found == {
        Outcome.SCREENED_OUT: candidates.REFUSALS | screen.REASONS,
        Outcome.FAILED: failed,
        Outcome.ERROR: detect.REASONS - failed - {detect.NO_ANSWER} - of_answers_only,
        Outcome.UNKNOWN: {detect.NO_ANSWER},
        Outcome.UNSPENT: {BUDGET_SPENT, RUN_STOPPED},
        Outcome.DUPLICATE: {SAME_CONTENT},
    }
    assert set(re.findall(r"^`(\w+)`.* and `(\w+)`", PAGE, re.MULTILINE)[0]) == of_answers_only

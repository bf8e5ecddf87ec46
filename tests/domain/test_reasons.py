"""The page of reasons is compared with the sets in the code."""

import re
from collections import defaultdict
from pathlib import Path

from s2v_tasks.domain import detect, faces, image_url, screening
from s2v_tasks.domain.ledger import BUDGET_EXHAUSTED, HOPELESS, RUN_STOPPED
from s2v_tasks.domain.verdict_table import SAME_CONTENT
from s2v_tasks.models import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "reasons.md").read_text("utf-8")
ROW = re.compile(r"^\| (?:`(\w+)`)? ?\| (`.*?`) \|", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """The page's reasons by outcome; an empty first cell is the one above."""
    found: dict[str, set[str]] = defaultdict(set)
    outcome = ""
    for name, reasons in ROW.findall(PAGE):
        outcome = name or outcome
        found[outcome] |= set(re.findall(r"`(\w+)`", reasons))
    return found


def test_every_reason_is_on_the_page_under_its_outcome() -> None:
    """None is missing, none is made up; those that only a response has are named below the table."""
    found = documented()
    failed = {*detect.FAILED_CHECKS.values(), detect.CHECK_FAILED}
    of_responses_only = {
        rule.reason for rule in detect.RULES if rule.kind in {detect.Kind.ACCOUNT, detect.Kind.THROTTLED}
    }
    assert found == {
        Outcome.SCREENED_OUT: image_url.REJECTION_REASONS | screening.REASONS | faces.BUCKET_OF.keys(),
        Outcome.FAILED: failed,
        Outcome.ERROR: detect.REASONS - failed - {detect.RESPONSE_LOST} - of_responses_only,
        Outcome.UNKNOWN: {detect.RESPONSE_LOST},
        Outcome.SKIPPED: {BUDGET_EXHAUSTED, HOPELESS, RUN_STOPPED},
        Outcome.DUPLICATE: {SAME_CONTENT},
    }
    assert set(re.findall(r"^`(\w+)`.* and `(\w+)`", PAGE, re.MULTILINE)[0]) == of_responses_only

"""What the terminal shows at a run's end."""

import io

import made_run
from made_run import row
from rich.console import Console

from s2v_tasks.cli.terminal import funnel
from s2v_tasks.domain.summary import summarize, tallies_of


def test_the_funnel_has_what_was_dropped_and_what_was_hopeless_apart() -> None:
    """Each with its reasons, unless the step says why; steps that few runs have are left out without rows."""
    rows = [
        row("a.example", "web", "passed", 1),
        *[row("a.example", "web", "screened_out", reason="too_small")] * 2,
        *[row("a.example", "web", "screened_out", reason="no_face", faces_seen=0)] * 3,
        *[row("a.example", "web", "skipped", reason="hopeless")] * 4,
    ]
    printed = io.StringIO()
    summary = summarize(tallies_of(made_run.verdicts(*rows).lazy()).collect())
    Console(file=printed, width=100).print(funnel(summary, "ascii"))
    assert [" ".join(line.replace("#", "").split()) for line in printed.getvalue().splitlines()] == [
        "candidates 10", "duplicates 0", "screened out for free 2", "too_small 2",
        "dropped by the face check 3", "no_face 3", "already checked, not paid again 0", "checked now 1",
        "passed 1", "failed 0", "errors 0", "left out as hopeless 4",
    ]  # fmt: skip

"""What a person sees in the terminal: a live bar while the run goes on, and the funnel at its end."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from s2v_tasks.domain.estimate import headline, lines
from s2v_tasks.domain.funnel import UNCHECKED
from s2v_tasks.errors import NotApproved
from s2v_tasks.models import Outcome

if TYPE_CHECKING:
    from s2v_tasks.adapters.storage.file_io import StoragePath
    from s2v_tasks.domain.estimate import Estimate
    from s2v_tasks.domain.summary import Summary
    from s2v_tasks.runtime.approval import Approval
    from s2v_tasks.runtime.run_context import RunContext
    from s2v_tasks.settings import CurateParameters

POLL_EVERY_S: Final = 0.25
BAR_WIDTH: Final = 30
MAX_REASONS: Final = 6
_STYLES: Final = {
    "candidates": ("", "bold"),
    **dict.fromkeys(UNCHECKED, ("  ", "yellow")),
    **dict.fromkeys(("already_checked", "checked"), ("  ", "")),
    Outcome.PASSED.value: ("", "bold green"),
    **dict.fromkeys((Outcome.FAILED.value, Outcome.ERROR.value), ("", "red")),
}
"""The indent and the style of the funnel's steps."""


class LiveBar:
    """A progress bar that follows a run: images done, calls a second, cost so far, time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[message]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # in a file, a bar is an empty line
        )
        self._task = self._bar.add_task("starting", total=None, message="")
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar for as long as the block lasts."""
        with self._bar:
            try:
                yield
            finally:
                self._over.set()
                if self._thread is not None:
                    self._thread.join()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while a person decides."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def follow(self, run: "RunContext") -> None:
        """Follow a run that has just opened."""
        self._thread = threading.Thread(target=self._poll, args=(run,), daemon=True)
        self._thread.start()

    def _poll(self, run: "RunContext") -> None:
        from s2v_tasks.runtime.progress import progress

        while not self._over.wait(POLL_EVERY_S):
            now = progress(run)
            message = f"{now.rate_per_s:.2f} calls/s  USD {now.run_cost_usd:.4f}"
            if now.left_s:
                message += f"  {_duration(now.left_s)} left"
            what = "curating" if now.done < now.total else "evaluating the gate"
            self._bar.update(
                self._task, description=what, completed=now.done, total=now.total, message=message
            )


def funnel(summary: "Summary", encoding: str = "utf-8") -> Table:
    """The way from candidates to approved images, as a table with bars that the terminal's encoding has."""
    block = "▆" if encoding.lower().startswith("utf") else "#"
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column()

    def line(label: str, count: int, style: str) -> None:
        width = max(1, round(BAR_WIDTH * count / summary.rows)) if count else 0
        if not count:
            style = "dim"
        table.add_row(Text(label, style), Text(f"{count:,}", style), Text(block * width, style or "cyan"))

    for step in summary.shown_steps:
        indent, style = _STYLES.get(step.key, ("", "magenta"))
        line(f"{indent}{step.label}", step.rows, style)
        for reason, count in step.reasons[:MAX_REASONS]:
            line(f"    {reason}", count, "dim")
        if others := sum(count for _, count in step.reasons[MAX_REASONS:]):
            line("    other reasons", others, "dim")
    return table


def estimated(estimate: "Estimate") -> Table:
    """What a run will cost, as a table."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="left")
    table.add_column(justify="right")
    for label, value in lines(estimate):
        table.add_row(Text(label), Text(value, "bold" if label.startswith("cost") else ""))
    return table


def money(summary: "Summary") -> str:
    """The cost in one line; USD."""
    per_approved = summary.cost_per_approved_usd
    each = f"{per_approved:.6f}" if per_approved is not None else "-"
    return (
        f"cost       USD {summary.run_cost_usd:.6f} this run, {summary.dataset_cost_usd:.6f} for this dataset"
        f" over all runs, {each} per approved image"
    )


def ask(bar: LiveBar, estimate: "Estimate", parameters: "CurateParameters") -> "Approval":
    """Ask at the terminal whether an expensive run may go on.

    Raises:
        NotApproved: Standard input is no terminal.
    """
    from s2v_tasks.runtime.approval import Approval

    above_usd = parameters.spending.approve_above_usd
    if not sys.stdin.isatty():
        raise NotApproved(
            f"not approved: {headline(estimate)}, over --approve-above-usd {above_usd:g}. Nothing was sent"
            " or paid; raise that, lower --budget-usd to it, or run the command in a terminal"
        )
    console = Console(stderr=True, highlight=False)
    # The event loop would only take note of a Ctrl-C.
    noting = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with bar.hidden():
            console.print(estimated(estimate))
            decision = console.input(f"Over USD {above_usd:g}: approve, a lower budget in USD, or stop? ")
    except (EOFError, KeyboardInterrupt):
        decision = "stop"
    finally:
        signal.signal(signal.SIGINT, noting)
    if decision.strip().lower() == "approve":
        return Approval(decision="approve")
    with contextlib.suppress(ValueError):  # which is what pydantic's errors are, too
        return Approval(decision="lower the budget", budget_usd=float(decision))
    return Approval(decision="stop")


def output_paths(run_dir: "StoragePath") -> "list[tuple[str, StoragePath]]":
    """The files of a run that are there."""
    found: list[tuple[str, StoragePath]] = [
        ("verdicts", run_dir / "verdicts.parquet"),
        ("approved", run_dir / "approved.parquet"),
        ("Data Docs", run_dir / "data_docs" / "index.html"),
        ("report", run_dir / "report.html"),
    ]
    return [(label, path) for label, path in found if path.exists()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

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

from s2v_tasks.errors import NotApproved
from s2v_tasks.estimate import headline, lines
from s2v_tasks.models import Outcome

if TYPE_CHECKING:
    from s2v_tasks.adapters.storage import Place
    from s2v_tasks.approval import Approval
    from s2v_tasks.estimate import Estimate
    from s2v_tasks.runs import Run
    from s2v_tasks.settings import CurateParameters
    from s2v_tasks.summary import Summary

LOOK_EVERY_S: Final = 0.25
BAR_WIDTH: Final = 30
MAX_REASONS: Final = 6


class LiveBar:
    """A progress bar that follows a run: pictures done, calls a second, cost so far, time left."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # in a file, a bar is an empty line
        )
        self._task = self._bar.add_task("starting", total=None, words="")
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
        """Take the bar away for as long as somebody is asked something."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def follow(self, run: "Run") -> None:
        """Follow a run that has just opened."""
        self._thread = threading.Thread(target=self._look, args=(run,), daemon=True)
        self._thread.start()

    def _look(self, run: "Run") -> None:
        from s2v_tasks.progress import progress

        while not self._over.wait(LOOK_EVERY_S):
            now = progress(run)
            words = f"{now.rate_per_s:.2f} calls/s  USD {now.cost_usd:.4f}"
            if now.left_s:
                words += f"  {_duration(now.left_s)} left"
            what = "curating" if now.done < now.total else "judging the data set"
            self._bar.update(self._task, description=what, completed=now.done, total=now.total, words=words)


def funnel(summary: "Summary") -> Table:
    """The way from candidates to approved pictures, as a table with bars."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column()

    def line(label: str, count: int, style: str = "", *, always: bool = True) -> None:
        if count or always:
            width = max(1, round(BAR_WIDTH * count / summary.rows)) if count else 0
            if not count:
                style = "dim"
            table.add_row(Text(label, style), Text(f"{count:,}", style), Text("▆" * width, style or "cyan"))

    def reasons(outcome: Outcome) -> None:
        found = summary.reasons_of(outcome)
        for reason, count in found[:MAX_REASONS]:
            line(f"    {reason}", count, "dim")
        line("    other reasons", sum(count for _, count in found[MAX_REASONS:]), "dim", always=False)

    line("candidates", summary.rows, "bold")
    line("  duplicates", summary.duplicates, "yellow")
    reasons(Outcome.DUPLICATE)
    line("  screened out for free", summary.screened_out, "yellow")
    reasons(Outcome.SCREENED_OUT)
    line("  known, not paid again", summary.known)
    line("  judged now", summary.judged)
    line("passed", summary.passed, "bold green")
    line("failed", summary.failed, "red")
    reasons(Outcome.FAILED)
    line("errors", summary.error, "red")
    reasons(Outcome.ERROR)
    line("unknown (answer lost)", summary.unknown, "magenta", always=False)
    line("unspent", summary.unspent, "magenta", always=False)
    reasons(Outcome.UNSPENT)
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
        f"cost       USD {summary.cost_usd:.6f} this run, {summary.data_set_cost_usd:.6f} for this data set"
        f" over all runs, {each} per approved picture"
    )


def ask(bar: LiveBar, estimate: "Estimate", parameters: "CurateParameters") -> "Approval":
    """Ask whoever sits at the terminal whether a dear run may go on.

    Raises:
        NotApproved: Nobody is there to ask.
    """
    from s2v_tasks.approval import Approval

    above_usd = parameters.spending.approve_above_usd
    if not sys.stdin.isatty():
        raise NotApproved(
            f"not approved: {headline(estimate)}, over --approve-above-usd {above_usd:g}. Nothing was asked"
            " or paid; raise that, lower --budget-usd to it, or run the command in a terminal"
        )
    console = Console(stderr=True, highlight=False)
    # The event loop would only take note of a Ctrl-C.
    noting = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with bar.hidden():
            console.print(estimated(estimate))
            said = console.input(f"Over USD {above_usd:g}: approve, a lower budget in USD, or stop? ")
    except (EOFError, KeyboardInterrupt):
        said = "stop"
    finally:
        signal.signal(signal.SIGINT, noting)
    if said.strip().lower() == "approve":
        return Approval(decision="approve")
    with contextlib.suppress(ValueError):  # which is what pydantic's errors are, too
        return Approval(decision="lower the budget", budget_usd=float(said))
    return Approval(decision="stop")


def places(run_dir: "Place") -> "list[tuple[str, Place]]":
    """Where to look for more, of what is there."""
    found: list[tuple[str, Place]] = [
        ("verdicts", run_dir / "verdicts.parquet"),
        ("approved", run_dir / "approved.parquet"),
        ("Data Docs", run_dir / "data_docs" / "index.html"),
    ]
    return [(label, path) for label, path in found if path.exists()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

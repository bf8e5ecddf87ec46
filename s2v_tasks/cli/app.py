"""The ``s2v`` command's table of verbs, and its one way to fail: a clear line and an exit status.

A verb's module is imported when it is used: ``s2v --help`` must start at once, without Prefect or polars.
The exit statuses are those of `s2v_tasks.errors`.
"""

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from s2v_tasks.cli.result import Json, begin, result
from s2v_tasks.cli.streams import Lenient, lenient_output, only_result_to_stdout
from s2v_tasks.errors import Interrupted, S2VError, UsageError

COMMANDS: Final[dict[str, str]] = {
    "demo": "Curate sample images against an emulated service: no key, no cost, loopback only.",
    "curate": "Curate candidate images into a gated, published dataset.",
    "estimate": "Report what a curation run would cost, without any paid call: no key is needed.",
    "gate": "Evaluate the gate of a finished run again: no call, no cost.",
    "report": "Write a run's report.html again: no call, no cost, nothing is fetched.",
    "rows": "Print or write the rows behind a number of a run.",
    "compare": "Compare two runs: funnel, cost, sources, and the verdicts that changed.",
    "publications": "List what was published in an output folder, and what was withdrawn.",
    "rollback": "Move the pointer back to an earlier publication; later ones are withdrawn.",
    "emulator": "Run the emulated detect service on loopback, with sample images and an invoice.",
    "ledger": "Report what was sent, received and paid; free of charge.",
    "prefect": "Set up and serve on a Prefect server of your own.",
}
"""Each verb with its line of help; it is the module of that name in this folder, with its ``app``."""

REPORTS: Final = ("estimate", "ledger", "report", "rows", "compare", "publications")
"""The verbs whose output is all that they do: one that is lost, on a full disk, is a failure."""

EXIT_WITHIN_S: Final = 30.0
"""How long Prefect may send its last logs and events: a server that is gone for good would take minutes."""

_GC_THRESHOLD = 20_000  # of new objects, 700 is Python's: imports make many and drop none, 12 % of their time
_TYPER_INTERRUPTED = 130  # what Typer gives for a Ctrl-C
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class LazyCommands(TyperGroup):
    """Verbs whose modules are imported when they are used, not when they are listed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Every verb, in the order of the table."""
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The verb, imported; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"s2v_tasks.cli.{cmd_name}").app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The table, for ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Curate portrait-image URLs: screen for free, check within the rate limit, gate, publish.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"s2v-tasks {version('s2v-tasks')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The options before a verb."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command: one clear line for whatever goes wrong, and the exit status of its kind."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    as_json = is_given("--json", given)
    begun = begin(next((one for one in given if one in COMMANDS), None))
    output = _begin_json() if as_json else None
    with lenient_output() as streams:
        status = _run(given, as_json=as_json)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if output is not None:
            _ignore_signals()
            with output:
                output.write(f"{begun.rendered(status)}\n".encode())
        read = [output] if output is not None else streams
        if lost := next((stream.lost for stream in read if stream.lost), None):
            failed = status == 0 and any(verb in REPORTS for verb in given[:1])
            status = fail(f"the output can't be written: {lost.strerror}", 1 if failed else status)
    end_within(EXIT_WITHIN_S, status)
    sys.exit(status)


def is_given(flag: str, arguments: Sequence[str]) -> bool:
    """Whether a flag that is read before the command line is parsed is on it."""
    return flag in takewhile("--".__ne__, arguments)


def _begin_json() -> Lenient | None:
    """Keep standard output for the result, and end as by a Ctrl-C at a signal that nothing else handles."""
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:  # what is ignored (nohup) stays so
            with suppress(ValueError):  # not the main thread
                signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    return only_result_to_stdout()


def _ignore_signals() -> None:
    """The command has ended: a signal must not change its result or its exit status."""
    for number in (signal.SIGINT, *_ENDING):
        with suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


def _run(arguments: Sequence[str], *, as_json: bool) -> int:
    debug = is_given("--debug", arguments)
    gc.set_threshold(_GC_THRESHOLD)
    try:
        status = app(arguments, standalone_mode=False, prog_name="s2v")
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "s2v")
        status = _failed(UsageError(f"{error.format_message()} ({where} --help shows how)"))
    except S2VError as error:
        if debug and not as_json:
            raise
        status = _failed(error, debug=debug)
    except (typer.Abort, KeyboardInterrupt):
        status = _TYPER_INTERRUPTED
    except Exception as error:
        if debug and not as_json:
            raise
        what = f"a defect: {type(error).__name__}: {error}; --debug shows where"
        status = _failed(S2VError(what), debug=debug)
    if status == _TYPER_INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one must not change the exit status
        exec("")  # noqa: S102  (CPython ends ``python -m`` by SIGINT if the last string it ran was interrupted)
        status = _failed(Interrupted("interrupted; the same command continues"))
    return status if isinstance(status, int) else 0


def _failed(error: S2VError, *, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    result().ended(error)
    return fail(str(error), error.exit_status)


def end_within(seconds: float, status: int) -> None:
    """End the process so long after it began to exit, whatever still waits in it."""

    def watch() -> None:
        timer = threading.Timer(seconds, os._exit, [status])
        timer.daemon = True
        timer.start()

    # Before those that Prefect has registered: at the exit the last one registered is called first.
    threading._register_atexit(watch)  # type: ignore[attr-defined]  # noqa: SLF001


def fail(line: str, status: int) -> int:
    """Print a failure's one line, and give its exit status."""
    typer.echo(f"s2v: {line}", err=True)
    return status


if __name__ == "__main__":
    main()

"""Prints docs/reference/cli.md: ``python -m s2v_tasks.cli.reference > docs/reference/cli.md``.

With the word ``result`` behind it, it prints docs/reference/result.schema.json.

Everything on that page is read from the fields, the errors and the table of moved parameters.
"""

import json
import sys
from collections.abc import Iterator

import typer

from s2v_tasks.cli.app import COMMANDS
from s2v_tasks.cli.estimate import MATTERS
from s2v_tasks.cli.result import ENDS, errors, schema
from s2v_tasks.errors import S2VError
from s2v_tasks.settings import GROUPS, CurateParameters
from s2v_tasks.settings.fields import Declared, declared
from s2v_tasks.settings.moved import MOVED


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([*_commands(), *_options(), *_statuses(), *_moved()]) + "\n"


def _commands() -> Iterator[str]:
    yield "# The `s2v` command"
    yield ""
    yield "This page is generated from the code; `s2v COMMAND --help` prints the same in the terminal:"
    yield ""
    yield "![the options of s2v curate in their panels](../curate-help.svg)"
    yield ""
    yield "| command | |"
    yield "| --- | --- |"
    for name, line in COMMANDS.items():
        yield f"| `s2v {name}` | {line} |"


def _options() -> Iterator[str]:
    fields = [*declared(CurateParameters)]
    yield ""
    yield "## Parameters of a run"
    yield ""
    yield "The title is that of the field in Prefect's form, the parameter its path in a deployment."
    yield "`s2v estimate` takes the options that are marked \\*, `s2v gate` those that name a fact."
    for group in (None, *GROUPS):
        here = [one for one in fields if (one.path[0] if len(one.path) > 1 else None) == group]
        yield ""
        yield f"### {here[0].group or 'Of every run'}"
        yield ""
        yield "| option | parameter | title | default | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        for one in here:
            yield _row(one)


def _row(one: Declared) -> str:
    path = ".".join(one.path)
    option = f"`{one.flag}`" if one.flag else "CANDIDATES" if path == "candidates" else "-"
    option = ", ".join([option, *(f"`{bare.flag}`" for bare in one.more_options)])
    mark = " \\*" if path in MATTERS else ""
    limit = ""
    if one.limit is not None:
        limit = f"; fact `{one.limit.fact}`, " + ("by choice" if one.limit.values else one.limit.side)
    return f"| {option}{mark} | `{path}` | {one.title} | {_default(one)} | {one.description}{limit} |"


def _default(one: Declared) -> str:
    if one.field.is_required():
        return "required"
    if isinstance(one.field.default, bool):
        return "on" if one.field.default else "off"
    return "-" if one.field.default in (None, ()) else f"`{one.field.default}`"


def _statuses() -> Iterator[str]:
    yield ""
    yield "## Exit status"
    yield ""
    yield "With status 1 the same command continues; for `AccountRefused`, once the account is in order."
    yield ""
    yield "The kind is what `--json` calls such an end: [result.md](result.md)."
    yield ""
    yield "| status | error | kind | retry | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for kind, meaning in ENDS.items():
        yield f"| 0 | - | `{kind}` | no | {meaning} |"
    for error in sorted(errors(S2VError), key=lambda error: error.exit_status):
        retry = "yes" if error.retryable else "no"
        meaning = (error.__doc__ or "").splitlines()[0]
        yield f"| {error.exit_status} | `{error.__name__}` | `{error.kind}` | {retry} | {meaning} |"
    yield ""
    yield "4 is also the status of a run that published what the budget reached (`--publish-partial`)."
    yield "A Ctrl-C is 1. An unexpected error is 5; so is `s2v ledger reconcile` where the lists disagree."


def _moved() -> Iterator[str]:
    yield ""
    yield "## Moved parameters"
    yield ""
    yield "Saved deployments that set the old paths work until the next release, with a warning; so do the"
    yield "old spellings of the options."
    yield ""
    yield "| was | is |"
    yield "| --- | --- |"
    for old, new in MOVED.items():
        yield f"| `{old}` | `{new}` |"


if __name__ == "__main__":
    typer.echo(f"{json.dumps(schema(), indent=2)}\n" if "result" in sys.argv[1:] else page(), nl=False)

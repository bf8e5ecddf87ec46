"""The result of a command as one JSON object, which ``--json`` prints whatever the exit status.

Verbs put into `result` what they know; `s2v_tasks.cli.app` prints it. `schema` describes it for other
programs, in docs/reference/result.schema.json.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Final

import typer

from s2v_tasks.errors import Interrupted, S2VError

Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object to standard output, and nothing else."),
]
"""Read by `s2v_tasks.cli.app.main`, wherever it is on the line."""

FORMAT: Final = 1
_SHORTEST_KEY: Final = 8  # characters; the vendor's have 35, and a shorter text stands in other words

ENDS: Final[dict[str, str]] = {
    "published": "The pointer names this run's file.",
    "superseded": "The gate is open, but a run that started later is published.",
    "rolled_back": "The pointer names this run's file again, by s2v rollback.",
    "gate_open": "The gate is open; it was evaluated only, and nothing was published.",
    "done": "The verb did or printed what it is for.",
}
"""The kinds of end that are no error; those that are have theirs in `s2v_tasks.errors`."""


@dataclass(slots=True)
class Result:
    """What a command came to."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"use_attribute_docstrings": True, "extra": "forbid"}

    format: int = FORMAT
    """Of this object; a member that is added does not change it."""
    verb: str | None = None
    """The command's verb; null if none was recognised."""
    kind: str = "done"
    """How the command ended."""
    exit_status: int = 0
    """The command's exit status."""
    retryable: bool = False
    """Whether the same command, run again, may end otherwise."""
    published: bool = False
    """Whether the pointer moved to this run's file: now, or earlier if the run is entered again."""
    message: str = ""
    """The end in a sentence; of a failure, the fact and then the fix."""
    run_id: str | None = None
    """The run; null if none was opened."""
    run_dir: str | None = None
    """Its folder."""
    published_file: str | None = None
    """The published file: approved rows, as Parquet."""
    pointer: str | None = None
    """The pointer that names the published file."""
    report: str | None = None
    """The report of the run for people, if there is one."""
    counts: dict[str, int] | None = None
    """Rows by outcome."""
    cost: dict[str, float | None] | None = None
    """USD: `billed` and `unknown` (lost responses, at full price) of this run; of the `dataset`, over all
    runs; and `per_approved` image."""
    face_check: dict[str, int | float | None] | None = None
    """Of a run with a face check, else null. Images `dropped`, by rule too (`no_face`, `several_faces`), and
    `hopeless`, of `hopeless_segments`; `sampled`: checked as the random sample, of which `sampled_passed`
    passed and the rules would have dropped `sampled_missed` of these; `missed_share_upper`: the bound of what
    they give up, null if nothing was dropped, and `max_missed_share`, what the run's gate allowed."""
    warnings: list[str] = field(default_factory=list)
    """Warnings, such as for a former spelling of an option."""
    details: dict[str, Any] = field(default_factory=dict)
    """What the verb itself reports, by name; members of the object itself."""

    def ended(self, error: S2VError, status: int | None = None) -> None:
        """Take the end from an error."""
        self.kind, self.message, self.retryable = error.kind, error.message, error.retryable
        self.exit_status = error.exit_status if status is None else status

    def completed(self, kind: str, message: str) -> None:
        """Take an end that is no error."""
        self.kind, self.message = kind, message

    def opened(self, run_dir: object) -> None:
        """The command works on this run: its folder says the rest."""
        self.run_dir = str(run_dir)

    def rendered(self, status: int) -> str:
        """The object in one line of ASCII; without the API key and without query strings of URLs."""
        if self.exit_status != status:
            if self.kind in ENDS and status not in (0, 4):
                self.ended(S2VError(self.message or "the command failed; standard error says why"))
            self.exit_status = status
        with suppress(S2VError, OSError):
            self._read_folder()
        self.message, self.warnings = _said(self.message), [_said(one) for one in self.warnings]
        common = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "details"}
        return _without_key(json.dumps(_plain({**common, **self.details}), default=str))

    def _read_folder(self) -> None:
        """What the run's folder says: identity, counts, cost, and whether it is published."""
        if self.run_dir is None:
            return
        from s2v_tasks.adapters.storage import pointer
        from s2v_tasks.adapters.storage.run_folder import open_run_folder

        folder = open_run_folder(self.run_dir)
        self.run_id, self.run_dir = folder.run_id, str(folder.path)
        if folder.report.is_file():
            self.report = str(folder.report)
        manifest = folder.read()
        passed, total = manifest.counts.get("passed"), manifest.dataset_cost_usd
        self.counts, self.face_check = manifest.counts or None, manifest.face_check
        self.cost = {
            **{name: manifest.run_cost_usd.get(name) for name in ("billed", "unknown")},
            "dataset": total,
            "per_approved": total / passed if total is not None and passed else None,
        }
        if self.kind not in ("published", "rolled_back", Interrupted.kind):
            return
        named = pointer.read(folder.out)
        publication = named if named is not None and named.run_id == folder.run_id else manifest.publication
        self.published = publication is not None
        if publication is not None:
            self.published_file, self.pointer = publication.path, str(pointer.path_of(folder.out))


_RESULT: ContextVar[Result | None] = ContextVar("s2v_result", default=None)


def result() -> Result:
    """The result of the command that runs now."""
    found = _RESULT.get()
    if found is None:
        found = begin(None)
    return found


def begin(verb: str | None) -> Result:
    """The empty result of a command that begins."""
    begun = Result(verb=verb)
    _RESULT.set(begun)
    return begun


def kinds() -> dict[str, str]:
    """Every kind of end with its meaning, in one line."""
    return ENDS | {error.kind: (error.__doc__ or "").splitlines()[0] for error in errors(S2VError)}


def errors(root: type[S2VError]) -> Iterator[type[S2VError]]:
    """An error class and all below it."""
    yield root
    for error in root.__subclasses__():
        yield from errors(error)


def schema() -> dict[str, Any]:
    """The JSON Schema of the object."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Result).json_schema()
    members = found["properties"]
    del members["details"]
    for member in members.values():
        member.pop("title", None)
        member.pop("default", None)
    members["format"] = {"const": FORMAT, "description": members["format"]["description"]}
    members["kind"]["enum"] = [*kinds()]
    members["exit_status"]["enum"] = [0, *sorted({error.exit_status for error in errors(S2VError)})]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Result of an s2v command",
        "description": "What --json prints. Further members are the verb's own: docs/reference/result.md",
        "type": "object",
        "required": [*members],
        "properties": members,
    }


def _said(message: str) -> str:
    """A text that may quote what was typed or received, without query strings and passwords of URLs."""
    from s2v_tasks.domain.error_body import text

    return text(message) or ""


def _without_key(line: str) -> str:
    key = os.environ.get("DASHSCOPE_API_KEY", "")
    return line.replace(key, "...") if len(key) >= _SHORTEST_KEY else line


def _plain(value: Any) -> Any:
    """A value that JSON has: a number that is none becomes null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

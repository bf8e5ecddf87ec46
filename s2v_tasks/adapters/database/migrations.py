"""The ledger's schema, version by version: migration N leads from version N - 1 to version N.

A migration is a function of the dialect (``sqlite`` or ``postgresql``) that gives literal SQL, one statement
each. It must do in years what it does today, so it never uses `tables.py`, which describes the newest version
alone. A new ledger is made by all of them in turn: it can't differ from an upgraded one. To add one: write
the function, append it to `SCHEMA`, change `tables.py`, and where the lease's table or columns change, add an
entry to ``leases``; `rename_table` keeps older programs out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

Migration = Callable[[str], Iterable[str]]

MARK: Final = "s2v_ledger"
"""The table that says that a database is a ledger: a row for each version that it has reached.

A table, not SQLite's ``application_id`` and ``user_version``, for PostgreSQL has nothing like those, and a
table is written in the migration's own transaction on both.
"""

VERSION_QUERY: Final = f"SELECT max(version) FROM {MARK}"  # noqa: S608  (our own word)

_VERSION_1: Final = {
    "attempts": (
        "id {serial}",
        "service VARCHAR NOT NULL",
        "account VARCHAR NOT NULL",
        "model VARCHAR NOT NULL",
        "image_key VARCHAR(32) NOT NULL",
        "host VARCHAR NOT NULL",
        "run_id VARCHAR NOT NULL",
        "budget VARCHAR NOT NULL",
        "state VARCHAR NOT NULL",
        "price_micro_usd INTEGER NOT NULL",
        "reserved_at BIGINT NOT NULL",
        "settled_at BIGINT",
        "request_id VARCHAR",
        "http_status INTEGER",
        "code VARCHAR",
    ),
    "budgets": (
        "name VARCHAR NOT NULL PRIMARY KEY",
        "cap BIGINT NOT NULL",
        "used BIGINT NOT NULL",
        "CONSTRAINT used_not_negative CHECK (used >= 0)",
    ),
    "contents": (
        "content_key VARCHAR(32) NOT NULL",
        "model VARCHAR NOT NULL",
        "service VARCHAR NOT NULL",
        "image_key VARCHAR(32) NOT NULL",
        "PRIMARY KEY (content_key, model, service)",
    ),
    "headers": (
        "image_key VARCHAR(32) NOT NULL",
        "allowed VARCHAR NOT NULL",
        "seen_at BIGINT NOT NULL",
        "image_format VARCHAR NOT NULL",
        "width_px INTEGER",
        "height_px INTEGER",
        "image_traits VARCHAR",
        "content_key VARCHAR(32)",
        "validator VARCHAR",
        "PRIMARY KEY (image_key, allowed)",
    ),
    "paces": (
        "account VARCHAR NOT NULL",
        "model VARCHAR NOT NULL",
        "service VARCHAR NOT NULL",
        "next_us BIGINT NOT NULL",
        "margin_ppm BIGINT NOT NULL",
        "paused_until_us BIGINT NOT NULL",
        "pause_us BIGINT NOT NULL",
        "throttled_us BIGINT NOT NULL",
        "slow_until_us BIGINT NOT NULL",
        "written_us BIGINT NOT NULL",
        "PRIMARY KEY (account, model, service)",
    ),
    "runs": (
        "run_id VARCHAR NOT NULL PRIMARY KEY",
        "owner VARCHAR NOT NULL",
        "host VARCHAR NOT NULL",
        "pid INTEGER NOT NULL",
        "process_start VARCHAR NOT NULL",
        "beat_us BIGINT NOT NULL",
        "budget VARCHAR NOT NULL",
        "started_at BIGINT NOT NULL",
        "status VARCHAR NOT NULL",
    ),
    "verdicts": (
        "image_key VARCHAR(32) NOT NULL",
        "model VARCHAR NOT NULL",
        "service VARCHAR NOT NULL",
        "attempt_id {integer} NOT NULL",
        "run_id VARCHAR NOT NULL",
        "outcome VARCHAR NOT NULL",
        "reason VARCHAR",
        "check_pass BOOLEAN",
        "humanoid BOOLEAN",
        "code VARCHAR",
        "message VARCHAR",
        "request_id VARCHAR",
        "http_status INTEGER",
        "billing VARCHAR NOT NULL",
        "judged_at BIGINT NOT NULL",
        "PRIMARY KEY (image_key, model, service)",
    ),
}
_TYPES: Final = {
    "sqlite": {"serial": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "integer": "INTEGER"},
    "postgresql": {"serial": "BIGSERIAL NOT NULL PRIMARY KEY", "integer": "BIGINT"},
}
_CONSTRAINTS: Final = ("PRIMARY", "CONSTRAINT")


def _words(table: str) -> set[str]:
    return {line.split()[0] for line in _VERSION_1[table]}


UNMARKED: Final = {table: frozenset(_words(table).difference(_CONSTRAINTS)) for table in _VERSION_1}
"""The tables of version 1, which has no mark, each with its columns: only this exact shape is a ledger."""


def _1_first_schema(dialect: str) -> Iterator[str]:
    """The tables of the first ledgers."""
    for table, lines in _VERSION_1.items():
        yield f"CREATE TABLE {table} ({', '.join(lines).format(**_TYPES[dialect])})"
    image = "ON attempts (image_key, model, service)"
    yield f"CREATE INDEX attempts_of_image {image}"
    yield "CREATE INDEX ix_attempts_run_id ON attempts (run_id)"
    # The database itself refuses a second open or a second confirmed charge for an image.
    yield f"CREATE UNIQUE INDEX one_reserved_per_image {image} WHERE state = 'reserved'"
    yield f"CREATE UNIQUE INDEX one_billed_per_image {image} WHERE state = 'billed'"


def _2_mark(dialect: str) -> Iterator[str]:  # noqa: ARG001  (the same on both)
    """The mark: from here on a ledger is recognised by it, not by the names of its tables."""
    yield f"CREATE TABLE {MARK} (version INTEGER NOT NULL PRIMARY KEY)"


def _3_standard_terms(dialect: str) -> Iterator[str]:
    """Tables and columns in the field's terms; a table for revoked verdicts."""
    yield from rename_table("headers", "header_cache")
    yield from rename_table("contents", "canonical_images")
    yield from rename_table("paces", "rate_limits")
    yield "ALTER TABLE header_cache RENAME COLUMN seen_at TO fetched_at"
    yield "ALTER TABLE runs RENAME COLUMN beat_us TO heartbeat_us"
    yield "ALTER TABLE verdicts RENAME COLUMN judged_at TO checked_at"
    yield "UPDATE runs SET status = 'budget_exhausted' WHERE status = 'budget_spent'"
    types = _TYPES[dialect]
    columns = [line for line in _VERSION_1["verdicts"] if line.split()[0] not in (*_CONSTRAINTS, "judged_at")]
    added = ("id {serial}", "revoked_at BIGINT NOT NULL", "why VARCHAR NOT NULL")
    lines = ", ".join([*added, *columns, "checked_at BIGINT NOT NULL"]).format(**types)
    yield f"CREATE TABLE revoked_verdicts ({lines})"


def _4_faces(dialect: str) -> Iterator[str]:  # noqa: ARG001  (the same on both)
    """What the face check saw in a file, beside its header."""
    for column in (
        "face_rules VARCHAR",
        "faces_seen INTEGER",
        "face_score FLOAT",
        "face_height_share FLOAT",
    ):
        yield f"ALTER TABLE header_cache ADD COLUMN {column}"


def rename_table(old: str, new: str) -> Iterator[str]:
    """Rename a table, and leave a table without its columns under the old name.

    A program of before the renaming would create the table that it misses, find no verdict in it and pay
    again. It finds this one instead, creates nothing and fails at its first statement.
    """
    yield f"ALTER TABLE {old} RENAME TO {new}"
    yield f"CREATE TABLE {old} (upgraded_use_a_newer_s2v_tasks INTEGER)"


@dataclass(frozen=True, slots=True)
class Leases:
    """Where a version of the schema keeps the leases.

    ``query`` gives ``run_id``, ``owner``, ``host``, ``pid``, ``process_start`` and ``heartbeat_us`` of each
    run that is marked as running.
    """

    table: str
    query: str


@dataclass(frozen=True, slots=True)
class Schema:
    """All versions up to the newest, the ``version`` that the program works with.

    ``leases``: by the version that brought them. ``readable_from``: the oldest version that can be read
    without being upgraded.
    """

    migrations: tuple[Migration, ...]
    leases: Mapping[int, Leases]
    readable_from: int

    @property
    def version(self) -> int:
        """The newest version."""
        return len(self.migrations)

    def leases_of(self, version: int) -> Leases:
        """Where that version keeps the leases."""
        return self.leases[max(number for number in self.leases if number <= version)]

    def statements(self, version: int, dialect: str) -> list[str]:
        """What leads from that version to the newest; 0 is an empty database."""
        found: list[str] = []
        for number, migration in enumerate(self.migrations, 1):
            if number > version:
                found += migration(dialect)
                if number > 1:
                    found.append(f"INSERT INTO {MARK} (version) VALUES ({number})")  # noqa: S608
        return found


SCHEMA: Final = Schema(
    migrations=(_1_first_schema, _2_mark, _3_standard_terms, _4_faces),
    leases={
        1: Leases(
            "runs",
            "SELECT run_id, owner, host, pid, process_start, beat_us AS heartbeat_us FROM runs"
            " WHERE status = 'running'",
        ),
        3: Leases(
            "runs",
            "SELECT run_id, owner, host, pid, process_start, heartbeat_us FROM runs WHERE status = 'running'",
        ),
    },
    readable_from=3,
)

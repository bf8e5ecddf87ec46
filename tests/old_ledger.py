"""A ledger as the first version of the program wrote it: no mark, schema 1. Its own SQL, nothing of today's.

`build` fills a database, `rows_of` reads one back, `open_as_it_did` does what that program does before its
first call.
"""

# ruff: noqa: S608 - statements are put together from this file's own words

from typing import Any, Final, Protocol

_TABLES: Final = """
CREATE TABLE attempts (id {serial}, service VARCHAR NOT NULL, account VARCHAR NOT NULL,
  model VARCHAR NOT NULL, image_key VARCHAR(32) NOT NULL,
  host VARCHAR NOT NULL, run_id VARCHAR NOT NULL, budget VARCHAR NOT NULL,
  state VARCHAR NOT NULL, price_micro_usd INTEGER NOT NULL, reserved_at BIGINT NOT NULL, settled_at BIGINT,
  request_id VARCHAR, http_status INTEGER, code VARCHAR{primary_key});
CREATE INDEX attempts_of_image ON attempts (image_key, model, service);
CREATE INDEX ix_attempts_run_id ON attempts (run_id);
CREATE UNIQUE INDEX one_billed_per_image ON attempts (image_key, model, service) WHERE state = 'billed';
CREATE UNIQUE INDEX one_reserved_per_image ON attempts (image_key, model, service) WHERE state = 'reserved';
CREATE TABLE budgets (name VARCHAR NOT NULL, cap BIGINT NOT NULL, used BIGINT NOT NULL, PRIMARY KEY (name),
  CONSTRAINT used_not_negative CHECK (used >= 0));
CREATE TABLE contents (content_key VARCHAR(32) NOT NULL, model VARCHAR NOT NULL, service VARCHAR NOT NULL,
  image_key VARCHAR(32) NOT NULL, PRIMARY KEY (content_key, model, service));
CREATE TABLE headers (image_key VARCHAR(32) NOT NULL, allowed VARCHAR NOT NULL, seen_at BIGINT NOT NULL,
  image_format VARCHAR NOT NULL, width_px INTEGER, height_px INTEGER, image_traits VARCHAR,
  content_key VARCHAR(32), validator VARCHAR, PRIMARY KEY (image_key, allowed));
CREATE TABLE paces (account VARCHAR NOT NULL, model VARCHAR NOT NULL, service VARCHAR NOT NULL,
  next_us BIGINT NOT NULL, margin_ppm BIGINT NOT NULL, paused_until_us BIGINT NOT NULL,
  pause_us BIGINT NOT NULL, throttled_us BIGINT NOT NULL, slow_until_us BIGINT NOT NULL,
  written_us BIGINT NOT NULL, PRIMARY KEY (account, model, service));
CREATE TABLE runs (run_id VARCHAR NOT NULL, owner VARCHAR NOT NULL, host VARCHAR NOT NULL,
  pid INTEGER NOT NULL, process_start VARCHAR NOT NULL, beat_us BIGINT NOT NULL, budget VARCHAR NOT NULL,
  started_at BIGINT NOT NULL, status VARCHAR NOT NULL, PRIMARY KEY (run_id));
CREATE TABLE verdicts (image_key VARCHAR(32) NOT NULL, model VARCHAR NOT NULL, service VARCHAR NOT NULL,
  attempt_id {integer} NOT NULL, run_id VARCHAR NOT NULL, outcome VARCHAR NOT NULL, reason VARCHAR,
  check_pass BOOLEAN, humanoid BOOLEAN, code VARCHAR, message VARCHAR, request_id VARCHAR,
  http_status INTEGER, billing VARCHAR NOT NULL, judged_at BIGINT NOT NULL,
  PRIMARY KEY (image_key, model, service));
"""
_SQLITE: Final = {
    "serial": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
    "primary_key": "",
    "integer": "INTEGER",
}
_POSTGRESQL: Final = {
    "serial": "BIGSERIAL NOT NULL",
    "primary_key": ", PRIMARY KEY (id)",
    "integer": "BIGINT",
}

NAMES: Final = ("attempts", "budgets", "contents", "headers", "paces", "runs", "verdicts")
_AT: Final = 1_764_000_000_000_000
"""In November 2025, microseconds."""
_MODEL: Final = "'wan2.2-s2v-detect', 'dashscope'"
_CALL: Final = "'dashscope', 'default', 'wan2.2-s2v-detect'"


def key(number: int) -> str:
    """An image's key: 0 passed, 1 has no human, 2 has two lost responses, 3 was under way, 4 is new."""
    return f"{number:032x}"


_ROWS: Final = f"""
INSERT INTO runs VALUES ('finished', 'a1', 'host 01', 11, '1.00', 1000, 'run:finished', {_AT}, 'published');
INSERT INTO runs VALUES ('stopped', 'a2', 'host 01', 12, '2.00', 2000, 'name:shared', {_AT + 1}, 'stopped');
INSERT INTO runs VALUES ('died', 'a3', 'host 01', 13, '3.00', 3000, 'name:shared', {_AT + 2}, 'running');
INSERT INTO runs VALUES ('spent', 'a4', 'host 01', 14, '4.00', 4000, 'run:spent', {_AT + 3}, 'budget_spent');
INSERT INTO budgets VALUES ('run:finished', 10, 1);
INSERT INTO budgets VALUES ('name:shared', 1000, 3);
INSERT INTO attempts VALUES (1, {_CALL}, '{key(0)}', 'a.example', 'finished', 'run:finished', 'billed', 574,
  {_AT}, {_AT + 9}, 'request-1', 200, NULL);
INSERT INTO attempts VALUES (2, {_CALL}, '{key(1)}', 'b.example', 'finished', 'run:finished', 'not_billed',
  574, {_AT + 1}, {_AT + 9}, 'request-2', 400, 'InvalidFile.NoHuman');
INSERT INTO attempts VALUES (3, {_CALL}, '{key(2)}', 'b.example', 'stopped', 'name:shared', 'unknown', 574,
  {_AT + 2}, {_AT + 9}, NULL, NULL, NULL);
INSERT INTO attempts VALUES (4, {_CALL}, '{key(2)}', 'b.example', 'died', 'name:shared', 'unknown', 574,
  {_AT + 3}, {_AT + 9}, NULL, NULL, NULL);
INSERT INTO attempts VALUES (7, {_CALL}, '{key(3)}', 'b.example', 'died', 'name:shared', 'reserved', 574,
  {_AT + 4}, NULL, NULL, NULL, NULL);
INSERT INTO verdicts VALUES ('{key(0)}', {_MODEL}, 1, 'finished', 'passed', NULL, TRUE, TRUE, NULL, NULL,
  'request-1', 200, 'billed', {_AT + 9});
INSERT INTO verdicts VALUES ('{key(1)}', {_MODEL}, 2, 'finished', 'failed', 'no_human', FALSE, FALSE,
  'InvalidFile.NoHuman', 'it''s nobody', 'request-2', 400, 'not_billed', {_AT + 9});
INSERT INTO headers VALUES ('{key(0)}', 'public', {_AT}, 'jpeg', 640, 800, 'exif', '{key(90)}', '"etag"');
INSERT INTO headers VALUES ('{key(1)}', 'public', {_AT}, 'unreadable', NULL, NULL, NULL, NULL, NULL);
INSERT INTO contents VALUES ('{key(90)}', {_MODEL}, '{key(0)}');
INSERT INTO paces VALUES ('default', {_MODEL}, 5000, 10000, 0, 0, 0, 0, 4000);
"""


class Connected(Protocol):
    """A database that takes SQL."""

    @property
    def is_sqlite(self) -> bool: ...

    async def sql(self, statement: str) -> list[tuple[Any, ...]]: ...


async def build(database: Connected) -> None:
    """Fill an empty database: on SQLite in WAL mode, which that program set before it made the tables."""
    if database.is_sqlite:
        await database.sql("PRAGMA journal_mode = WAL")
    await create_tables(database)
    for statement in _ROWS.strip().split(";\n"):
        await database.sql(statement.rstrip(";"))
    if not database.is_sqlite:
        await database.sql("SELECT setval('attempts_id_seq', 7)")


async def create_tables(database: Connected) -> None:
    """Create the tables alone."""
    tables = _TABLES.format(**(_SQLITE if database.is_sqlite else _POSTGRESQL))
    for statement in tables.strip().split(";\n"):
        await database.sql(statement.rstrip(";"))


async def table_names(database: Connected) -> set[str]:
    """The tables of the database."""
    names = await database.sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        if database.is_sqlite
        else "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    return {name for (name,) in names}


async def rows_of(database: Connected, **renamed: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the old tables, by the old names; ``renamed`` says how some are called now."""
    return {
        name: sorted(await database.sql(f"SELECT * FROM {renamed.get(name, name)}"), key=repr)
        for name in NAMES
    }


async def open_as_it_did(database: Connected) -> None:
    """What that program did before its first call: missing tables, the row of the rate limit, the lease."""
    if missing := set(NAMES) - await table_names(database):
        raise AssertionError(f"it would create {missing}, as if nothing had been paid")
    await database.sql(
        "INSERT INTO paces (account, model, service, next_us, margin_ppm, paused_until_us, pause_us,"
        f" throttled_us, slow_until_us, written_us) VALUES ('default', {_MODEL}, 0, 10000, 0, 0, 0, 0, 0)"
        " ON CONFLICT DO NOTHING"
    )
    await database.sql(
        "SELECT runs.run_id, runs.owner, runs.host, runs.pid, runs.process_start, runs.beat_us, runs.budget,"
        " runs.started_at, runs.status FROM runs WHERE runs.run_id = 'new'"
    )
    await database.sql(
        "INSERT INTO runs (run_id, owner, host, pid, process_start, beat_us, budget, started_at, status)"
        f" VALUES ('new', 'a9', 'host 01', 19, '9.00', 9000, 'run:new', {_AT}, 'closed')"
    )

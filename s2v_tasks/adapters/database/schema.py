"""Which version of the ledger's schema a database holds, and its upgrade in one transaction."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from s2v_tasks.adapters.database.lease import is_dead
from s2v_tasks.adapters.database.migrations import MARK, UNMARKED, VERSION_QUERY, Schema
from s2v_tasks.adapters.database.tables import metadata
from s2v_tasks.errors import LedgerRefused

_NOT_ALLOWED = "42501"  # PostgreSQL's insufficient_privilege
_TABLES_NAMED = 5


def version_of(db: sa.Connection, shown: str, schema: Schema) -> int:
    """The version of the schema; 0 where a ledger may be created. Changes nothing. ``shown``: its name.

    Raises:
        LedgerRefused: The database is no ledger, or one that this program can't use.
    """
    # First: a ledger gets its tables before it is turned to WAL, so one in WAL without tables is a copy
    # that left them behind.
    in_wal = db.dialect.name == "sqlite" and db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    inspector = sa.inspect(db)
    names = set(inspector.get_table_names())
    if MARK in names:
        return _marked_version(db, shown, schema, names)
    if not names and in_wal:
        raise LedgerRefused(
            f"{shown} has no tables, as a ledger copied without its -wal file: copy it again with"
            " VACUUM INTO; if nothing was ever paid with it, remove the file"
        )
    ours = sorted(UNMARKED.keys() & names)
    if not ours and (not names or db.dialect.name == "postgresql"):
        return 0  # several programs may share a schema of PostgreSQL, but not a file of SQLite
    columns = {table: {column["name"] for column in inspector.get_columns(table)} for table in ours}
    others = [table for table in ours if columns[table] != UNMARKED[table]]
    if others or ours != sorted(UNMARKED):
        raise LedgerRefused(
            f"{shown} holds other tables and no ledger ({_some(others or sorted(names))});"
            " name an empty database or schema with --ledger or S2V_LEDGER_URL"
        )
    return 1


def _marked_version(db: sa.Connection, shown: str, schema: Schema, names: set[str]) -> int:
    version: int | None = db.exec_driver_sql(VERSION_QUERY).scalar()
    if version is not None and version > schema.version:
        raise LedgerRefused(
            f"the ledger {shown} is newer than this program (schema {version}, supported: {schema.version});"
            " upgrade s2v-tasks"
        )
    missing = sorted(metadata.tables.keys() - names) if version == schema.version else []
    if version is None or missing:
        raise LedgerRefused(
            f"the ledger {shown} is damaged: {', '.join(missing) or 'its version'} is missing;"
            " restore it from a backup"
        )
    return version


def check_version(db: sa.Connection, shown: str, schema: Schema) -> None:
    """Hold the schema as it is until the end of the transaction: an upgrade locks what is read here.

    Raises:
        LedgerRefused: It was upgraded after this process had opened it.
    """
    version = db.exec_driver_sql(VERSION_QUERY).scalar()
    if version != schema.version:
        raise LedgerRefused(
            f"the ledger {shown} was upgraded meanwhile (schema {version}, supported: {schema.version});"
            " upgrade s2v-tasks"
        )


def upgrade(db: sa.Connection, shown: str, schema: Schema, now_us: int) -> int:
    """Bring the database to the newest version, in the transaction of ``db``, which holds the write lock.

    Returns the version that was found: another process may have been faster.

    Raises:
        LedgerRefused: A run is at work on the ledger, or the role may not change tables.
    """
    version = version_of(db, shown, schema)
    if version == schema.version:
        return version
    statements = schema.statements(version, db.dialect.name)
    for_owner = _for_owner(db, statements) if db.dialect.name == "postgresql" else []
    try:
        if version:
            _check_no_run(db, shown, schema, version, now_us)
        for statement in statements:
            db.exec_driver_sql(statement)
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
            raise
        what = f"upgraded from schema {version} to {schema.version}" if version else "created"
        raise LedgerRefused(
            f"the ledger {shown} must be {what}, and its role may not do that;"
            f" have the owner of the database run:\n{_script(for_owner)}"
        ) from None
    return version


def _check_no_run(db: sa.Connection, shown: str, schema: Schema, version: int, now_us: int) -> None:
    leases = schema.leases_of(version)
    if db.dialect.name == "postgresql":  # no process can take a lease until the upgrade is committed
        locked = leases.table if version == 1 else f"{MARK}, {leases.table}"
        db.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
    for run in db.exec_driver_sql(leases.query).mappings():
        if not is_dead(run, now_us):
            raise LedgerRefused(
                f"the ledger {shown} must be upgraded (schema {version} to {schema.version}) and run"
                f" {run['run_id']} (process {run['pid']} on {run['host'].split()[0]}) is using it;"
                " wait for that run to end and run the same command again"
            )


def _for_owner(db: sa.Connection, statements: Sequence[str]) -> list[str]:
    """The statements for someone else to run, with what the role then needs."""
    where, role = db.exec_driver_sql("SELECT quote_ident(current_schema()), quote_ident(current_user)").one()
    tables = ", ".join([MARK, *sorted(metadata.tables)])
    grants = [
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {where} TO {role}",
    ]
    return [f"SET LOCAL search_path TO {where}", *statements, *grants]


def _script(statements: Sequence[str]) -> str:
    return "\n".join(f"{statement};" for statement in ("BEGIN", *statements, "COMMIT"))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TABLES_NAMED} more" if len(names) > _TABLES_NAMED else ""
    return ", ".join(names[:_TABLES_NAMED]) + more

"""The ledger's tables, the same on SQLite and PostgreSQL.

Times are integer microseconds: ``*_us`` on the ledger's clock, ``*_at`` since 1970 UTC.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

metadata = MetaData()
_id = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_start", String, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("budget", String, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("status", String, nullable=False),
)
"""A run and the process that holds it: its lease."""

budgets = Table(
    "budgets",
    metadata,
    Column("name", String, primary_key=True),
    Column("cap", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    CheckConstraint("used >= 0", name="used_not_negative"),
)
"""Whole images: what a budget buys, and what counts against it (reserved + billed + unknown)."""

attempts = Table(
    "attempts",
    metadata,
    Column("id", _id, primary_key=True, autoincrement=True),
    Column("service", String, nullable=False),
    Column("account", String, nullable=False),
    Column("model", String, nullable=False),
    Column("image_key", String(32), nullable=False),
    Column("host", String, nullable=False),
    Column("run_id", String, nullable=False, index=True),
    Column("budget", String, nullable=False),
    Column("state", String, nullable=False),
    Column("price_micro_usd", Integer, nullable=False),
    Column("reserved_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("request_id", String),
    Column("http_status", Integer),
    Column("code", String),
    Index("attempts_of_image", "image_key", "model", "service"),
    sqlite_autoincrement=True,  # a number is never given to two calls
)
"""One call each. Keys and hosts are kept, URLs are not."""

for _state in ("reserved", "billed"):
    # The database itself refuses a second open or a second confirmed charge for an image.
    Index(
        f"one_{_state}_per_image",
        attempts.c.image_key,
        attempts.c.model,
        attempts.c.service,
        unique=True,
        sqlite_where=text(f"state = '{_state}'"),
        postgresql_where=text(f"state = '{_state}'"),
    )

verdicts = Table(
    "verdicts",
    metadata,
    Column("image_key", String(32), primary_key=True),
    Column("model", String, primary_key=True),
    Column("service", String, primary_key=True),
    Column("attempt_id", _id, nullable=False),
    Column("run_id", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("reason", String),
    Column("check_pass", Boolean),
    Column("humanoid", Boolean),
    Column("code", String),
    Column("message", String),
    Column("request_id", String),
    Column("http_status", Integer),
    Column("billing", String, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
)
"""What is stored about an image for every later run: verdicts and content errors only."""

header_cache = Table(
    "header_cache",
    metadata,
    Column("image_key", String(32), primary_key=True),
    Column("allowed", String, primary_key=True),
    Column("fetched_at", BigInteger, nullable=False),
    Column("image_format", String, nullable=False),
    Column("width_px", Integer),
    Column("height_px", Integer),
    Column("image_traits", String),
    Column("content_key", String(32)),
    Column("validator", String),
    Column("face_rules", String),
    Column("faces_seen", Integer),
    Column("face_score", Float),
    Column("face_height_share", Float),
)
"""What the free screen read of an image's header; no reasons: they follow from today's rules.

And what the face check saw in that file, by the rules that are named; null: nothing that holds.
"""

canonical_images = Table(
    "canonical_images",
    metadata,
    Column("content_key", String(32), primary_key=True),
    Column("model", String, primary_key=True),
    Column("service", String, primary_key=True),
    Column("image_key", String(32), nullable=False),
)
"""The image that represents some bytes, for good: others with the same bytes are checked by its key."""

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("account", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("service", String, primary_key=True),
    Column("next_us", BigInteger, nullable=False),
    Column("margin_ppm", BigInteger, nullable=False),
    Column("paused_until_us", BigInteger, nullable=False),
    Column("pause_us", BigInteger, nullable=False),
    Column("throttled_us", BigInteger, nullable=False),
    Column("slow_until_us", BigInteger, nullable=False),
    Column("written_us", BigInteger, nullable=False),
)
"""The row that everyone on an account shares; see `s2v_tasks.domain.rate_limit`."""

revoked_verdicts = Table(
    "revoked_verdicts",
    metadata,
    Column("id", _id, primary_key=True, autoincrement=True),
    Column("revoked_at", BigInteger, nullable=False),
    Column("why", String, nullable=False),
    *(Column(column.name, column.type, nullable=column.nullable) for column in verdicts.columns),
)
"""Verdicts that no longer hold, as they were."""

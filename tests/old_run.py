"""Run folders as the first version of the program wrote them: no format number, nothing of today's."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

RUN_ID: Final = "20251124T160000Z-a1b2c3"
STARTED_AT: Final = "2025-11-24T16:00:00.123456Z"
PRICE_USD: Final = 0.000574
SERVICE: Final = "http://127.0.0.1:9"
_TEXT: Final = ("image_key", "outcome", "reason", "code", "message", "request_id", "billing", "image_format")
_NUMBERS: Final = ("row", "duplicate_of", "http_status", "attempts", "width_px", "height_px")
_COLUMNS: Final = (
    "row", "image_key", "outcome", "reason", "duplicate_of", "check_pass", "humanoid", "code", "message",
    "request_id", "http_status", "attempts", "billing", "cost_usd", "paid_usd", "from_ledger", "width_px",
    "height_px", "image_format", "image_traits", "judged_at",
)  # fmt: skip


def finished(out: Path) -> Path:
    """A published run of two images, of which one passed; gives its folder."""
    folder = out / "runs" / RUN_ID
    folder.mkdir(parents=True)
    verdicts = _verdicts()
    verdicts.write_parquet(folder / "verdicts.parquet")
    verdicts.filter(outcome="passed").write_parquet(folder / "approved.parquet")
    end: dict[str, Any] = {
        "status": "published",
        "finished_at": "2025-11-24T16:01:00Z",
        "message": "published 1 approved pictures",
        "rows": 2,
        "counts": {"passed": 1, "failed": 1},
        "cost_usd": {"billed": PRICE_USD, "unknown": 0.0},
        "data_set_cost_usd": PRICE_USD,
        "gate": {"open": True, "failed": []},
    }
    _write(folder / "manifest.json", _manifest(parameters(out, out / "candidates.parquet"), "0" * 64) | end)
    pointer = {
        "run_id": RUN_ID,
        "started_at": STARTED_AT.replace("Z", "+00:00"),
        "path": str(folder / "approved.parquet"),
        "rows": 1,
        "sha256": hashlib.sha256((folder / "approved.parquet").read_bytes()).hexdigest(),
        "cost_usd": PRICE_USD,
        "data_set_cost_usd": PRICE_USD,
        "gate": {"judged_at": "2025-11-24T16:01:00+00:00", "expectations": 55, "pass_rate": 0.5},
    }
    _write(out / "published" / "current.json", pointer)
    return folder


def exhausted(out: Path) -> Path:
    """A run whose budget was spent: one image passed, one response was lost, one was not reached."""
    folder = out / "runs" / RUN_ID
    folder.mkdir(parents=True)
    shared = {"billing": "unknown", "attempts": 2, "from_ledger": False, "cost_usd": 2 * PRICE_USD}
    lost = {
        **shared, "image_url": "https://a.example/1.jpg", "row": 1, "image_key": "1" * 32,
        "outcome": "unknown", "reason": "no_answer", "paid_usd": 2 * PRICE_USD,
        "judged_at": datetime(2025, 11, 24, 16, 0, 31, tzinfo=UTC),
    }  # fmt: skip
    unspent = {
        "image_url": "https://a.example/2.jpg", "row": 2, "image_key": "2" * 32, "outcome": "unspent",
        "reason": "budget_spent", "attempts": 0, "billing": "none", "cost_usd": 0.0, "paid_usd": 0.0,
        "from_ledger": False,
    }  # fmt: skip
    first = _verdicts().head(1)
    rows = pl.concat([first, pl.DataFrame([lost, unspent], schema=first.schema)])
    rows.write_parquet(folder / "verdicts.parquet")
    rows.filter(outcome="passed").write_parquet(folder / "approved.parquet")
    end: dict[str, Any] = {
        "status": "budget_spent",
        "finished_at": "2025-11-24T16:01:00Z",
        "message": "the budget was spent before 1 of 3 rows were judged",
        "rows": 3,
        "counts": {"passed": 1, "unknown": 1, "unspent": 1},
        "cost_usd": {"billed": PRICE_USD, "unknown": 2 * PRICE_USD},
        "data_set_cost_usd": 3 * PRICE_USD,
        "gate": {"open": False, "failed": []},
    }
    _write(folder / "manifest.json", _manifest(parameters(out, out / "candidates.parquet"), "0" * 64) | end)
    return folder


def unfinished(out: Path, candidates: Path, ledger: Path) -> Path:
    """A run that was killed when it had kept its rows; gives its folder."""
    folder = out / "runs" / RUN_ID
    (folder / "work").mkdir(parents=True)
    pl.read_parquet(candidates).write_parquet(folder / "work" / "rows.parquet")
    chosen = parameters(out, candidates)
    _write(folder / "manifest.json", _manifest(chosen, _identity(chosen, candidates, ledger)))
    return folder


def parameters(out: Path, candidates: Path) -> dict[str, Any]:
    """The parameters of a plain run, in that version's names and order."""
    return {
        "candidates": str(candidates),
        "budget_usd": 0.1,
        "source": {
            "url_column": "image_url", "limit": None, "sample": None, "seed": 0, "stratify_by": None,
            "segment_column": None,
        },
        "screening": {
            "enabled": True, "allow_private_hosts": False, "allow_ports": [], "fresh_for_h": 24.0,
            "same_content": False, "runner": "loop", "shards_at_once": 4, "estimate_from": 200,
        },
        "spending": {
            "ledger": None, "ledger_block": None, "account": "default", "credentials": None,
            "budget_name": None, "on_unknown": "retry", "approve_above_usd": None, "approve_within_h": 24.0,
        },
        "out": str(out),
        "thresholds": {
            "min_pass_rate": 0.5, "max_unknown_share": 0.05, "max_error_share": 0.1,
            "max_unreachable_share": 0.2, "allow_partial": False, "max_cost_usd": None,
            "max_cost_per_approved_usd": None,
        },
        "output": {"keep_duplicates": False, "shard_size": 100},
    }  # fmt: skip


def _identity(chosen: dict[str, Any], candidates: Path, ledger: Path) -> str:
    screening = {k: v for k, v in chosen["screening"].items() if k not in ("runner", "shards_at_once")}
    text = json.dumps(chosen | {"screening": screening}, separators=(",", ":"), ensure_ascii=False)
    file = candidates.stat()
    line = f"{candidates.resolve()}\0{file.st_size}\0{file.st_mtime_ns}\0"
    fingerprint = hashlib.sha256(line.encode()).hexdigest()
    whole = "\0".join((text, SERVICE, f"sqlite+aiosqlite:///{ledger}", fingerprint))
    return hashlib.sha256(whole.encode()).hexdigest()


def _manifest(chosen: dict[str, Any], identity: str) -> dict[str, Any]:
    return {
        "run_id": RUN_ID,
        "status": "running",
        "started_at": STARTED_AT,
        "finished_at": None,
        "service": SERVICE,
        "ledger": "sqlite+aiosqlite:////somewhere/ledger.sqlite3",
        "identity": identity,
        "parameters": chosen,
        "message": None,
        "rows": 0,
        "counts": {},
        "cost_usd": {},
        "data_set_cost_usd": None,
        "gate": None,
        "versions": {"python": "3.11.7", "s2v-tasks": "0.1.0"},
        "files": {},
    }


def _verdicts() -> pl.DataFrame:
    types: dict[str, Any] = {
        **dict.fromkeys((*_TEXT, "image_traits"), pl.String),
        **dict.fromkeys(_NUMBERS, pl.Int64),
        **dict.fromkeys(("check_pass", "humanoid", "from_ledger"), pl.Boolean),
        **dict.fromkeys(("cost_usd", "paid_usd"), pl.Float64),
        "judged_at": pl.Datetime("us", "UTC"),
    }
    shared = {"attempts": 1, "from_ledger": False, "width_px": 640, "height_px": 800, "image_format": "jpeg"}
    judged = {**shared, "judged_at": datetime(2025, 11, 24, 16, 0, 30, tzinfo=UTC)}
    passed = {
        "image_url": "https://a.example/0.jpg", "row": 0, "image_key": "0" * 32, "outcome": "passed",
        "check_pass": True, "humanoid": True, "request_id": "request-1", "http_status": 200,
        "billing": "billed", "cost_usd": PRICE_USD, "paid_usd": PRICE_USD, **judged,
    }  # fmt: skip
    failed = {
        "image_url": "https://a.example/1.jpg", "row": 1, "image_key": "1" * 32, "outcome": "failed",
        "reason": "no_human", "check_pass": False, "humanoid": False, "code": "InvalidFile.NoHuman",
        "message": "nobody", "request_id": "request-2", "http_status": 400, "billing": "not_billed",
        "cost_usd": 0.0, "paid_usd": 0.0, **judged,
    }  # fmt: skip
    schema = {"image_url": pl.String, **{name: types[name] for name in _COLUMNS}}
    return pl.DataFrame([passed, failed], schema=schema)


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2), "utf-8")

"""Draws the report of a run as one HTML file that needs nothing else: no network, no other file.

Text of others is escaped by the template; only this module's own files and its JSON stand in it as they are.
"""

import base64
import hashlib
import json
import shlex
from datetime import datetime
from importlib import resources
from typing import Any, Final

import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from s2v_tasks.adapters.suite_file import number_text
from s2v_tasks.domain import by_source, drift, faces, funnel, pass_rate
from s2v_tasks.domain.report import MAX_CHANGES, Report, shown_parameters
from s2v_tasks.domain.report_gate import MAX_SEGMENTS
from s2v_tasks.domain.run_commands import rows_command
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import Outcome

MAX_SOURCES: Final = 1_000
SHOWN_FIRST: Final = 10
_SIDE_PX: Final = 160
_MIN_SIDE_PX: Final = 400
_PASSED: Final = Outcome.PASSED.value
MISSED_SHARE: Final = "missed_share_upper"
"""The fact beside whose threshold the report says what the face check did not check."""
_SCALED: Final = ("too_small", "too_large")
_NOTES: Final = {
    "not_fetched": "can't be fetched any more",
    "unreadable": "can't be decoded",
    "too_large": "too large to show",
    "time_limit": "not fetched in time",
    "not_shown": "not shown",
}


def html_of(report: Report, written: datetime) -> str:
    """The page."""
    files = resources.files("s2v_tasks.adapters") / "report"
    page, css, script = ((files / f"report.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sheets, first, ids = _sheets(report)
    run, run_dir = report.run, report.run.run_dir
    return environment.from_string(page).render(
        report=report,
        css=Markup(css),  # noqa: S704  (our own file)
        script=Markup(script),  # noqa: S704  (our own file)
        gate_facts=Markup(_json(report.gate.script_facts())),  # noqa: S704  (escaped)
        policy=_policy(css, script),
        infinity=float("inf"),
        number=lambda value: "-" if value is None else "∞" if value == float("inf") else number_text(value),
        shown=shown,
        started=dict(run.details).get("started", ""),
        written=f"{written:%Y-%m-%d %H:%M:%S} UTC",
        figures=_figures(report),
        header=by_source.header(report.frames.sources),
        face_lines=_face_lines(report),
        rules=list(faces.BUCKET_OF),
        rule_bounds=_rule_bounds(report),
        missed_share=MISSED_SHARE,
        shown_first=SHOWN_FIRST,
        max_segments=MAX_SEGMENTS,
        sources=_sources(report),
        compared=drift.cells(report.compared[: MAX_SOURCES + 1]),
        drift_header=drift.HEADER,
        gone=drift.gone(report.compared),
        sheets=sheets, first_sheets=first, sheet_ids=ids,
        changes=_changes(report),
        verdict_changes=[] if report.frames.changed is None
        else report.frames.changed.head(MAX_CHANGES).to_dicts(),
        rate_from=_time(report.frames.responses, 0),
        rate_to=_time(report.frames.responses, -1),
        details=[
            ("Ids", [("run", run.run_id), ("folder", run_dir), ("status", run.status), *run.details]),
            ("Parameters", shown_parameters(run.parameters)),
            ("Versions", [*run.versions.items()]),
            ("SHA-256 of the files", [*run.files.items()]),
        ],
        gate_again=shlex.join(["s2v", "gate", run_dir]),
        report_again=shlex.join(["s2v", "report", run_dir]),
        compare=shlex.join(["s2v", "compare", f"{run_dir.rpartition('/')[0]}/{run.previous}", run_dir]),
    )  # fmt: skip


def _policy(css: str, script: str) -> str:
    """Nothing from outside, and no script or style but the page's own."""
    style, code = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{code}';"
        " base-uri 'none'; form-action 'none'"
    )


def _json(facts: dict[str, Any]) -> str:
    """JSON that can stand in a script element."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _figures(report: Report) -> list[tuple[str, str]]:
    facts = report.gate.facts[0]
    cost, run_cost = (float(report.frames.outcomes[name].sum()) for name in ("usd", "run_usd"))
    return [
        ("approved images", f"{facts.passed:,}"),
        ("pass rate", pass_rate.shown(facts.pass_rate, facts.sampled)),
        *[("its median before", by_source.share(one.rows[0].median)) for one in report.compared[:1]],
        ("cost, over all runs", f"USD {cost:,.4f}"),
        ("cost of this run", f"USD {run_cost:,.4f}"),
        ("cost per approved", f"USD {cost / facts.passed:,.6f}" if facts.passed else "-"),
        ("account time used", _duration(report.hours)),
    ]


def _face_lines(report: Report) -> list[tuple[str, str]]:
    """What the face check did not check; its bound stands beside its threshold."""
    limits = [one.limit for one in report.gate.sliders if one.fact == MISSED_SHARE]
    return [] if report.frames.faces is None else report.frames.faces.lines(limits[0] if limits else None)


def _rule_bounds(report: Report) -> list[tuple[str, list[str]]]:
    """The bound of each rule overall and in each segment; those of no dropped image are left out."""
    found = []
    for fact in (report.gate.facts[0], *report.gate.segments[:MAX_SEGMENTS]):
        bounds = [getattr(fact, f"{rule}_missed_upper") for rule in faces.BUCKET_OF]
        if bounds != [None] * len(bounds):
            name = "overall" if fact.segment is None else shown(fact.segment)
            found.append((name, [by_source.share(bound) for bound in bounds]))
    return found


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def _time(responses: pl.DataFrame, at: int) -> str:
    return "" if responses.is_empty() else f"{responses['second'][at]:%Y-%m-%d %H:%M:%S}"


def _sources(report: Report) -> list[dict[str, Any]]:
    """A table for each kind of source."""
    tables, names = [], by_source.counts(report.frames.sources)
    for kind in report.frames.sources["kind"].unique(maintain_order=True):
        of_kind = report.frames.sources.filter(pl.col("kind") == kind)
        first = of_kind.head(MAX_SOURCES)
        rows = [
            {"cells": cells, "command": rows_command(report.run.run_dir, **{kind: name})}
            for name, cells in zip(first["source"], by_source.cells(first, names), strict=True)
        ]
        tables.append({"kind": kind, "rows": rows, "left_out": of_kind.height - first.height})
    return tables


def _changes(report: Report) -> list[dict[str, Any]]:
    frame = report.frames.changed_sources
    if frame is None:
        return []
    tables = []
    for kind in frame["kind"].unique(maintain_order=True):
        of_kind = frame.filter(pl.col("kind") == kind)
        rows = of_kind.head(MAX_CHANGES).to_dicts()
        tables.append({"kind": kind, "rows": rows, "left_out": of_kind.height - len(rows)})
    return tables


# -- contact sheets ------------------------------------------------------------------------------------


def _sheets(report: Report) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, str]]:
    """The sheets, the first of each step by the funnel's keys, and the id of each by step and reason."""
    tiles = report.frames.tiles
    if tiles is None:
        return [], {}, {}
    sheets: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    ids: dict[str, str] = {}
    for number, name in enumerate(tiles["sheet"].unique(maintain_order=True)):
        outcome, _, reason = name.partition("/")
        of_sheet = tiles.filter(pl.col("sheet") == name)
        is_scaled = reason in _SCALED
        of_reason = None if outcome == _PASSED else reason or None
        scale = _scale(of_sheet) if is_scaled else 1.0
        sheet_id = f"sheet-{number}"
        step = of_sheet.select(funnel.step()).item(0, 0)
        first.setdefault(step, sheet_id)
        ids[f"{step}/{reason}"] = sheet_id
        sheets.append(
            {
                "id": sheet_id,
                "name": _sheet_name(outcome, reason),
                "is_scaled": is_scaled,
                "frame": f"{_MIN_SIDE_PX * scale:.1f}",
                "tiles": [_tile(one, scale if is_scaled else None) for one in of_sheet.to_dicts()],
                "command": rows_command(report.run.run_dir, outcome=outcome, reason=of_reason),
            }
        )
    if sheets:
        first["candidates"] = "images"
        first["checked"] = next((first[k] for k in ("failed", "passed", "error") if k in first), "images")
    return sheets, first, ids


def _sheet_name(outcome: str, reason: str) -> str:
    if reason not in faces.BUCKET_OF:
        return shown(f"{outcome}: {reason}" if reason else outcome)
    if outcome == _PASSED:
        return f"dropped by rule, checked in the sample, passed: {reason}"
    return f"dropped by the face check: {reason}"


def _scale(tiles: pl.DataFrame) -> float:
    """Shown pixels for one of an image, so that the largest image and the 400-pixel frame both fit."""
    longest: list[int] = [
        value for name in ("image_width", "image_height") for value in tiles[name].drop_nulls()
    ]
    return _SIDE_PX / max(_MIN_SIDE_PX, *longest, 1)


def _tile(one: dict[str, Any], scale: float | None) -> dict[str, Any]:
    data, size = one["thumbnail"], ""
    width, height = one["width_px"], one["height_px"]
    if one["image_width"] and one["image_height"]:
        size = f"{one['image_width']} x {one['image_height']}"
        if scale is not None:
            width, height = one["image_width"] * scale, one["image_height"] * scale
    what = " ".join(part for part in (one["outcome"], one["reason"], size) if part)
    return {
        "row": one["row"],
        "size": size,
        "segment": shown(one["segment"])[:60],
        "code": shown(one["code"])[:80],
        "why": _NOTES.get(one["note"] or "", shown(one["note"]) or "no image"),
        "alt": f"row {one['row']}: {shown(what)}",
        "width": width,
        "height": height,
        "source": None if data is None else f"data:{_type(data)};base64,{base64.b64encode(data).decode()}",
    }


def _type(data: bytes) -> str:
    return "image/webp" if data[:4] == b"RIFF" else "image/jpeg"

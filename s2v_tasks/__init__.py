"""Curate portrait-image URLs for talking-portrait video, with Prefect.

Data travels one way; a reader follows it in this order::

    candidates -> screen -> detect -> verdicts -> gate -> publish
                              |
                   ledger (asked, answered, paid) and pace (5 a second)

Each stage is a pure module of that name; `engine` is the only loop that pays; `adapters` holds what waits,
spends or writes; `flows` holds the Prefect flows. Names below load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2v_tasks.curation import open_curation
    from s2v_tasks.emulator import Emulator, EmulatorOptions
    from s2v_tasks.errors import S2VError
    from s2v_tasks.finish import Curated
    from s2v_tasks.flows.curate import curate
    from s2v_tasks.flows.pipeline import pipeline
    from s2v_tasks.publish import Publication
    from s2v_tasks.settings import CurateParameters, Output, Screening, Source, Spending, Thresholds
    from s2v_tasks.verdicts import SCHEMA

_WHERE = {
    "SCHEMA": "verdicts",
    "CurateParameters": "settings",
    "Curated": "finish",
    "Emulator": "emulator",
    "EmulatorOptions": "emulator",
    "Output": "settings",
    "Publication": "publish",
    "S2VError": "errors",
    "Screening": "settings",
    "Source": "settings",
    "Spending": "settings",
    "Thresholds": "settings",
    "curate": "flows.curate",
    "open_curation": "curation",
    "pipeline": "flows.pipeline",
}

__all__ = [
    "SCHEMA",
    "CurateParameters",
    "Curated",
    "Emulator",
    "EmulatorOptions",
    "Output",
    "Publication",
    "S2VError",
    "Screening",
    "Source",
    "Spending",
    "Thresholds",
    "curate",
    "open_curation",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)

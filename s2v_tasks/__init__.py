"""Curate portrait-image URLs for talking-portrait video, with Prefect.

Data travels one way::

    candidates -> screen -> detect -> verdicts -> gate -> publish
                              |
                   ledger (attempts, charges) and rate limit (5 a second)

The package is built as ports and adapters; imports run down only (contracts in pyproject.toml):

- ``cli``: the ``s2v`` command, a module per verb.
- ``flows``, a folder at the root of the repository: what Prefect runs.
- ``tasks``: the Prefect tasks; ``blocks``: credentials and ledger.
- ``runtime``: the life of a run: plan, estimate, approval, opening, dispatch, sending, finishing.
- ``adapters``: one for each thing outside: ``http``, ``database``, ``storage``, ``images``,
  ``prefect``, ``gx``.
- ``domain``: pure rules, a module per stage and subject; no clock, file or network.
- ``models``, ``settings``, ``errors``: what every layer may use.
- ``emulator``: the detect service on loopback, for the demo and for tests.

The names below are the public API; each loads when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2v_tasks.adapters.storage.run_data import RunData, published, read_run
    from s2v_tasks.adapters.storage.run_folder import open_run_folder
    from s2v_tasks.domain.candidate_table import add_image_keys, unique_images
    from s2v_tasks.domain.publish_rules import Publication
    from s2v_tasks.domain.verdict_table import SCHEMA
    from s2v_tasks.emulator import Emulator, EmulatorOptions
    from s2v_tasks.errors import S2VError
    from s2v_tasks.flows.curate import curate
    from s2v_tasks.flows.pipeline import pipeline
    from s2v_tasks.runtime.dispatch import process_shards
    from s2v_tasks.runtime.finalize import CurationResult, finalize_run
    from s2v_tasks.settings import Advanced, CurateParameters, Output, Screening, Source, Spending, Thresholds
    from s2v_tasks.tasks import open_curation

_WHERE = {
    "Advanced": "settings",
    "SCHEMA": "domain.verdict_table",
    "CurateParameters": "settings",
    "CurationResult": "runtime.finalize",
    "Emulator": "emulator",
    "EmulatorOptions": "emulator",
    "Output": "settings",
    "Publication": "domain.publish_rules",
    "RunData": "adapters.storage.run_data",
    "S2VError": "errors",
    "Screening": "settings",
    "Source": "settings",
    "Spending": "settings",
    "Thresholds": "settings",
    "add_image_keys": "domain.candidate_table",
    "curate": "flows.curate",
    "finalize_run": "runtime.finalize",
    "open_curation": "tasks",
    "open_run_folder": "adapters.storage.run_folder",
    "pipeline": "flows.pipeline",
    "process_shards": "runtime.dispatch",
    "published": "adapters.storage.run_data",
    "read_run": "adapters.storage.run_data",
    "unique_images": "domain.candidate_table",
}

__all__ = [
    "SCHEMA",
    "Advanced",
    "CurateParameters",
    "CurationResult",
    "Emulator",
    "EmulatorOptions",
    "Output",
    "Publication",
    "RunData",
    "S2VError",
    "Screening",
    "Source",
    "Spending",
    "Thresholds",
    "add_image_keys",
    "curate",
    "finalize_run",
    "open_curation",
    "open_run_folder",
    "pipeline",
    "process_shards",
    "published",
    "read_run",
    "unique_images",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)

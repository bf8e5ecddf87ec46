"""The baseline of a run: what its gate was first evaluated with, else the publications before it."""

from contextlib import suppress

from s2v_tasks.adapters.storage import history, pointer
from s2v_tasks.adapters.storage.gate_reports import read_report
from s2v_tasks.adapters.storage.run_folder import RunFolder
from s2v_tasks.domain.drift import MAX_PUBLICATIONS, Baseline, baseline


def read_baseline(folder: RunFolder) -> Baseline:
    """What a run is compared with. Each report of its gate holds it, so it stays what it was at the first.

    Reports of earlier versions hold none; for those it is made of the history now, in which later runs and
    withdrawn publications don't count.

    Raises:
        UsageError: It is no run's folder, or a newer program wrote a publication.
        S2VError: The pointer or a publication can't be read.
    """
    with suppress(OSError, ValueError, TypeError):  # a damaged report: the gate is about to write another
        report = read_report(folder, None) or {}
        if (stored := report.get("baseline")) is not None:
            return Baseline.model_validate(stored)
    out, current = folder.out, pointer.read(folder.out)
    return baseline(history.before(out, folder.read(), current, MAX_PUBLICATIONS))

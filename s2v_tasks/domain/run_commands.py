"""Commands about a run, to be pasted into a shell: its rows, its gate, and the command that repeats it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from s2v_tasks.domain.shown_text import shown
from s2v_tasks.settings import CurateParameters
from s2v_tasks.settings.fields import declared


def rows_command(run_dir: str, **criteria: str | Sequence[str] | None) -> str | None:
    """The command that prints the rows behind a number.

    Args:
        run_dir: The run's folder.
        criteria: ``outcome``, ``reason``, ``segment`` and ``host``, as `s2v_tasks.domain.row_filter` takes
            them, one value or several; None: any.

    Returns:
        None if a value can't be shown, because it is a URL with a query string or has control characters.
    """
    given = [
        (name, value)
        for name, values in criteria.items()
        for value in ([values] if isinstance(values, str) else values or ())
    ]
    if any(shown(value) != value for _, value in given):
        return None
    return shlex.join(["s2v", "rows", run_dir, *(f"--{name}={value}" for name, value in given)])


def gate_command(run_dir: str, thresholds: Mapping[str, float | bool], *, publish: bool = False) -> str:
    """The command that evaluates the gate again; ``thresholds`` by their options, True for a bare one."""
    options = [
        part
        for flag, value in thresholds.items()
        for part in ([flag] if value is True else [flag, f"{value:.12g}"])
    ]
    return shlex.join(["s2v", "gate", run_dir, *options, *(["--publish"] if publish else [])])


def curate_command(parameters: CurateParameters) -> str:
    """The command that starts the run again, with each parameter that differs from its default."""
    words = ["s2v", "curate", shown(parameters.candidates)]
    for one in declared(CurateParameters):
        value: Any = parameters
        for name in one.path:
            value = getattr(value, name)
        if (
            one.flag is None
            or one.name == "run_id"
            or value == one.field.get_default(call_default_factory=True)
        ):
            continue
        if one.flag_value is not None:
            bare = [(one.flag_value, one.flag), *((each.value, each.flag) for each in one.more_options)]
            words += [flag for of, flag in bare if flag and of == value]
        else:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for each in values if each is not None for word in (one.flag, shown(str(each)))]
    return shlex.join(words)

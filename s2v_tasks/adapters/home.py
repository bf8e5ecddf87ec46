"""The home folder in paths as people write them: ``~/data`` in forms, YAML, ``--out=~/data`` and URLs."""

from pathlib import Path

from s2v_tasks.errors import UsageError


def expanded(name: str) -> str:
    """Replace a leading ``~`` or ``~user`` as a shell does; a name that only begins so is left as it is.

    Raises:
        UsageError: The home folder is unknown.
    """
    first = name.partition("/")[0]
    if not first.startswith("~"):
        return name
    try:
        return str(Path(first).expanduser()) + name[len(first) :]
    except RuntimeError:
        if first != "~":
            return name
        raise UsageError(f"{name}: the home folder is unknown; set HOME, or write the whole path") from None

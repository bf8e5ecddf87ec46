"""The command in this process, in an empty folder; for verbs that need no Prefect server."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from unchanged_process import unchanged_process

from s2v_tasks.cli.app import main


@pytest.fixture
def s2v(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run the command with some arguments; gives its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["s2v", *map(str, arguments)])
        with pytest.raises(SystemExit) as end, unchanged_process():
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capfd.readouterr()

    return run

"""What the tests start ends with them."""

import os
import subprocess
import sys

import psutil
import pytest

CHILD = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(300)"]
SESSION = f"""
import os, subprocess
env = {{**os.environ, "TESTS_PID": str(os.getpid())}}
child = subprocess.Popen({CHILD}, env=env, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux waits for a process that is no child")
def test_a_child_of_killed_tests_ends_with_them() -> None:
    """Even one in a session of its own, as the commands are that the tests start."""
    with subprocess.Popen([sys.executable, "-c", SESSION], stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        child = psutil.Process(int(session.stdout.readline()))
        session.kill()
        child.wait(60)
    assert not child.is_running()

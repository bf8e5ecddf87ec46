"""The emulator as a child process: its start, its ends, and what is left of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from emulator_caller import Caller

from s2v_tasks.emulator import Emulator, EmulatorOptions, Fault
from s2v_tasks.emulator.fixture import EmulatorFactory
from s2v_tasks.errors import UsageError

ROOT = str(Path(__file__).parents[2])


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)


def test_importing_the_package_and_its_fixtures_loads_nothing_heavy() -> None:
    """Every pytest session loads the fixtures, so they may not pay for a server they do not start."""
    done = run_python(
        "import sys, s2v_tasks.emulator, s2v_tasks.emulator.fixture\n"
        "heavy = {'starlette', 'uvicorn', 'PIL', 'httpx', 'polars', 'prefect'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_base_url_is_the_vendors_with_another_host(s2v_emulator: Emulator) -> None:
    """A client needs nothing but the base URL and any key."""
    assert s2v_emulator.base_url == f"{s2v_emulator.origin}/api/v1"
    assert s2v_emulator.origin.startswith("http://127.0.0.1:")


def test_the_invoice_file_survives_a_sigkill_and_goes_on(
    s2v_emulator_factory: EmulatorFactory, http_client: httpx.Client, tmp_path: Path
) -> None:
    """Every billed call is in the file at the moment of the kill, and the next emulator adds to it."""
    options = EmulatorOptions(invoice_path=tmp_path / "invoice.jsonl", fetch_images=False, limit=None)
    first = s2v_emulator_factory(options)
    for number in range(20):
        Caller(first, http_client).send(f"http://h/{number}.jpg")
    first.kill()
    written = [json.loads(line) for line in (tmp_path / "invoice.jsonl").read_text().splitlines()]
    assert [line["image_url"] for line in written] == [f"http://h/{number}.jpg" for number in range(20)]
    second = s2v_emulator_factory(options)
    Caller(second, http_client).send("http://h/last.jpg")
    assert [line["image_url"] for line in second.invoice()][-2:] == ["http://h/19.jpg", "http://h/last.jpg"]
    assert len((tmp_path / "invoice.jsonl").read_text().splitlines()) == 21
    second.reset()
    assert (tmp_path / "invoice.jsonl").read_text() == ""


def test_a_killed_parent_leaves_no_orphan() -> None:
    """The emulator ends with a parent that had no chance to end it."""
    code = (
        "import sys, signal\nfrom s2v_tasks.emulator import Emulator\n"
        "with Emulator() as emulator:\n    print(emulator.base_url, flush=True)\n    signal.pause()"
    )
    env = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        httpx.get(base_url, trust_env=False)
        parent.kill()
        # The emulator holds the same standard error: end of file means that it is gone too.
        _, complaints = parent.communicate(timeout=60)
    assert complaints == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(base_url, trust_env=False)


def test_close_ends_the_process_even_while_a_response_stalls(http_client: httpx.Client) -> None:
    """A stalled response does not hold up the end, and closing twice is fine."""
    with Emulator(EmulatorOptions(faults=("stall:delay_s=60",), fetch_images=False)) as emulator:
        with pytest.raises(httpx.ReadTimeout):
            Caller(emulator, http_client).send("http://h/a.jpg", timeout=0.2)
        pid = emulator.pid
        emulator.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_port_in_use_is_reported_in_one_line() -> None:
    """The parent learns why the child could not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"can't listen on 127.0.0.1:{port}"):
            Emulator(EmulatorOptions(port=port)).start()


def test_an_invoice_file_that_can_not_be_written_is_reported_in_one_line(tmp_path: Path) -> None:
    """A folder that does not exist, or a file that is no invoice, stops the start."""
    (tmp_path / "other").write_text("not json\n")
    for path in (tmp_path / "no" / "such" / "folder", tmp_path / "other"):
        with pytest.raises(UsageError, match="can't use the invoice file"):
            Emulator(EmulatorOptions(invoice_path=path)).start()


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": "hourly"},
        {"limit": 0},
        {"port": 70_000},
        {"latency_s": -1.0},
        {"fetch_timeout_s": 0.0},
        {"faults": ("nonsense",)},
    ],
)
def test_options_that_can_not_be_are_refused_before_anything_starts(wrong: dict[str, object]) -> None:
    """A wrong option is a usage error where it is written."""
    with pytest.raises(UsageError):
        EmulatorOptions(**wrong)  # type: ignore[arg-type]


def test_options_survive_the_way_to_the_child() -> None:
    """What the child reads is what the parent was given, faults as text."""
    options = EmulatorOptions(
        window="leaky",
        limit=2.5,
        api_key="k",
        faults=(Fault("drop", rate=0.5), "html"),
        invoice_path=Path("/i"),
    )
    read = EmulatorOptions.from_json(options.to_json())
    assert read.faults == ("drop:rate=0.5", "html")
    assert (read.window, read.limit, read.api_key, read.invoice_path) == ("leaky", 2.5, "k", Path("/i"))


def test_a_second_start_is_refused(s2v_emulator: Emulator) -> None:
    """An emulator object is one process."""
    with pytest.raises(UsageError, match="started before"):
        s2v_emulator.start()


def test_the_factory_starts_several_with_options_of_their_own(s2v_emulator_factory: EmulatorFactory) -> None:
    """Two emulators run side by side, each with its own invoice."""
    one, two = s2v_emulator_factory(), s2v_emulator_factory(EmulatorOptions(limit=None))
    assert one.origin != two.origin
    assert one.invoice() == two.invoice() == []


def test_the_foreground_service_ends_quietly_on_ctrl_c() -> None:
    """`serve` reports its URL when it listens, and an interrupt leaves no traceback."""
    code = (
        "from s2v_tasks.emulator import EmulatorOptions, serve\n"
        "serve(EmulatorOptions(), ready=lambda url: print(url, flush=True))"
    )
    env = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as service:
        assert service.stdout is not None
        base_url = service.stdout.readline().strip()
        assert httpx.get(base_url.removesuffix("/api/v1"), trust_env=False).status_code == 200
        service.send_signal(signal.SIGINT)
        _, complaints = service.communicate(timeout=60)
    assert (service.returncode, complaints) == (0, "")

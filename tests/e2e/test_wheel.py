"""The wheel, installed alone: it adds one name to site-packages and runs the demo in an empty folder."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from workbench import Bench

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_adds_one_name(wheel: Path) -> None:
    """Flows and suites are inside: a bare ``flows`` would shadow the user's own."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"s2v_tasks"}
    wanted = ("flows/curate.py", "flows/gate.py", "flows/pipeline.py", "py.typed")
    wanted += ("expectations/gate.json", "expectations/verdicts.json", "emulator/fixture.py")
    wanted += tuple(f"adapters/report/report.{kind}" for kind in ("html", "css", "js"))
    assert {f"s2v_tasks/{name}" for name in wanted} <= set(names)


@pytest.mark.slow  # .ci/run itself runs the demo of an installed package, outside of the checkout
def test_the_wheel_alone_runs_the_demo(wheel: Path, bench: Bench) -> None:
    """In an empty folder, with nothing of the checkout in reach."""
    home = bench.folder / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*")) / "site-packages"
    # Its dependencies are those of this environment; the checkout's own editable install is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    zipfile.ZipFile(wheel).extractall(site)
    empty = bench.folder / "empty"
    empty.mkdir()
    where = "import s2v_tasks.flows.curate as c; print(c.__file__)"
    ran = subprocess.run([python, "-c", where], cwd=empty, env=bench.env, capture_output=True, text=True)
    assert Path(ran.stdout.strip()).is_relative_to(site), ran.stdout + ran.stderr
    ran = subprocess.run(
        [python, "-m", "s2v_tasks", "demo"], cwd=empty, env=bench.env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "published 35 approved images" in ran.stdout
    assert {path.name for path in empty.iterdir()} == {"s2v-demo"}

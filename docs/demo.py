"""Draws docs/demo.svg, the end of a real run of ``s2v demo``: ``python docs/demo.py``."""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

DRAWING = Path(__file__).with_name("demo.svg")
COLUMNS = 104
FONTS = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
"""Fonts that readers have: nothing is fetched."""


def output_of_the_demo(folder: str) -> str:
    """What the demo prints, in colours, with its folder as ``~``."""
    command = [sys.executable, "-m", "s2v_tasks", "demo"]
    ran = subprocess.run(  # noqa: S603  (our own)
        command,
        cwd=folder,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return ran.stdout.replace(os.path.realpath(folder), "~")


def drawn(output: str) -> str:
    """What a terminal shows, as an SVG without outside references."""
    console = Console(file=io.StringIO(), record=True, width=COLUMNS)
    console.print(Text.from_ansi(output.strip("\n")))
    return without_fonts(console.export_svg(title="s2v demo"))


def without_fonts(svg: str) -> str:
    """The SVG without the fonts that it would fetch."""
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", FONTS)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        DRAWING.write_text(drawn(output_of_the_demo(folder)), "utf-8")

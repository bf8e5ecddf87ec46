"""Tables in the terminal: text folds, numbers stay whole; in a pipe each row is one line."""

from collections.abc import Collection, Sequence
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE: Final = 10_000


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[str] = (),
    *,
    fold_names: bool = False,
) -> None:
    """Print rows of text below their header.

    Args:
        header: The name of each column.
        rows: A cell for each column.
        texts: The columns of text, which take what the others leave; those are numbers.
        fold_names: A name that is longer than its cells takes several lines in a terminal.
    """
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for number, name in enumerate(header):
        label = name.replace("_", " ") if fold_names and console.is_terminal else name
        if name in texts:
            table.add_column(label, overflow="fold")
            continue
        needed = max(len(text) for text in (*label.split(), *(row[number] for row in rows)))
        table.add_column(label, justify="right", min_width=needed)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not console.is_terminal:  # a line for each row, and a word for each column
        console.width = Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum
    console.print(table)

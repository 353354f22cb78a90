"""Tables, progress and a picture: in a terminal by rich, in a notebook as HTML."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from itertools import zip_longest
from textwrap import shorten
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

Progress = Callable[[str], None]
BAR = "background:#4477aa;height:0.8em"
WIDTH = 160  # columns of a table that is not for a terminal
NOTE = 120  # characters
LEFT = ("", "method", "shape", "what", "line", "operation")  # columns of words


def text_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], below: Sequence[str] = ()) -> str:
    """A table as text, as wide as the terminal, and lines below it."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    written = StringIO()
    Console(file=written, width=_width(), highlight=False, markup=False, color_system=None).print(table)
    return "\n".join([*(line.rstrip() for line in written.getvalue().splitlines()), *below])


def _width() -> int:
    console = Console()
    return console.width if console.is_terminal else WIDTH


def in_words(size: int | float) -> str:
    """Bytes for people: ``"3.92 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def noted(text: str) -> str:
    """A note as short as a table can have it."""
    return shorten(text, NOTE)


def html_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    below: Sequence[str] = (),
    bars: Sequence[float] = (),
) -> str:
    """The same for a notebook; ``bars`` are shares of the width, one a row."""

    def line(cells: Sequence[str], tag: str, bar: str = "") -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + bar + "</tr>"

    drawn = [f'<td style="width:12em"><div style="{BAR};width:{share:.1%}">&nbsp;</div></td>' for share in bars]
    body = "".join(line(row, "td", bar) for row, bar in zip_longest(rows, drawn, fillvalue=""))
    said = "".join(f"<p><code>{escape(text)}</code></p>" for text in below)
    return f"<table><caption>{escape(title)}</caption>{line(header, 'th')}{body}</table>{said}"


@contextmanager
def tracking(what: str, shown: bool | None = None) -> Iterator[Progress]:
    """A line that says what is being compiled, and how many have been; by default in a terminal and in a notebook."""
    console = Console(stderr=True)
    visible = (console.is_terminal or console.is_jupyter) if shown is None else shown
    columns = SpinnerColumn(), TextColumn("{task.completed:.0f} compiled, now {task.description}"), TimeElapsedColumn()
    with Bar(*columns, console=console, transient=True, disable=not visible) as bar:
        task = bar.add_task(what, total=None)

        def say(name: str) -> None:
            bar.update(task, description=name, advance=1)

        yield say


def frontier(
    points: Sequence[tuple[str, int, float]], memory: int | None, title: str, best: str | None, axes: Any = None
) -> Any:
    """Memory against work, one point a method, and the memory that there is as a line.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise RuntimeError("matplotlib is not installed: pip install matplotlib") from None
    if axes is None:
        _, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, size, ratio in points:
        axes.plot(size / 2**20, ratio, "o" if name != best else "D", color="C0" if name != best else "C3")
        axes.annotate(name, (size / 2**20, ratio), textcoords="offset points", xytext=(5, 4), fontsize=8)
    if memory is not None:
        axes.axvline(memory / 2**20, color="0.4", linestyle="--")
        axes.annotate("memory", (memory / 2**20, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    axes.set(xscale="log", xlabel="planned memory, MiB", ylabel="flops over plain's", title=title)
    return axes

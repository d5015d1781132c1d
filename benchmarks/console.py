"""Where tables are printed."""

from rich.console import Console

WIDTH_OF_A_FILE = 250  # where there is no terminal to ask, do not cut the tables


def make_console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    return console

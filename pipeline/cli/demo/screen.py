"""What the demo prints, and in which form."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.views.terminal import print_styled
from pipeline.core.visible_text import visible, visible_json

WIDTH = 100


class Screen:
    """Numbered chapters on standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=WIDTH)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self.line("")
        self.line(f"{self._chapters}. {title}", "bold")

    def line(self, text: str, style: str = "") -> None:
        """Print one line, whole also where it is longer than the screen."""
        print_styled(Text(visible(text), style), self.console)

    def note(self, text: str) -> None:
        """Print what is being done."""
        self.line(f"  {text}", "dim")

    def command(self, text: str) -> None:
        """Print what is run."""
        self.line(f"  $ {text}", "bold")

    def table(self, table: Table) -> None:
        """Print a table, whose cells are visible already."""
        self.console.print(table)

    def document(self, document: Any) -> None:  # noqa: ANN401
        """Print a JSON document."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self.console.print(Text(visible_json(text), "dim"))

"""What the demo prints, and in which form."""

import json
from typing import Any

from rich.console import Console

from pipeline.cli.terminal import escaped

WIDTH = 100


class Screen:
    """Numbered chapters on standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=WIDTH)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self.console.print(f"\n[bold]{self._chapters}. {escaped(title)}[/]")

    def line(self, text: str, style: str | None = None) -> None:
        """Print one line, whole also where it is longer than the screen."""
        self.console.print(escaped(text), style=style, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print what is being done."""
        self.line(f"  {text}", "dim")

    def command(self, text: str) -> None:
        """Print what is run."""
        self.line(f"  $ {text}", "bold")

    def document(self, document: Any) -> None:  # noqa: ANN401
        """Print a JSON document."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self.console.print(escaped(text), style="dim")

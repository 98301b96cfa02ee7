"""What the demo prints, and in which form."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.visible_text import visible
from pipeline.errors import IntegrityError

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
        self.console.print(Text(visible(text), style), soft_wrap=True)

    def show(self, what: Table | Text) -> None:
        """Print what is visible already."""
        self.console.print(what)

    def note(self, text: str) -> None:
        """Print what is being done."""
        self.line(f"  {text}", "dim")

    def command(self, text: str) -> None:
        """Print what is run."""
        self.line(f"  $ {text}", "bold")

    def answer(self, method: str, path: str, status: str) -> None:
        """Print what was asked over HTTP, and the status of the answer."""
        self.line(f"  {method} /api/rmos/runs{path}  ->  {status}", "bold")


def expect(holds: bool, otherwise: str) -> None:  # reads like an assertion
    """Check that something is as the demo shows it.

    Raises:
        IntegrityError: It is not.
    """
    if not holds:
        raise IntegrityError(otherwise)

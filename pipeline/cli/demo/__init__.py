"""`rmos demo`: a tour with a real broker and a real disk, in a temporary folder."""

import shutil
import tempfile
from pathlib import Path


def demo() -> None:
    """Show what becomes of run requests, on a real broker and a real disk; no input is needed."""
    from pipeline.app.process import run_service
    from pipeline.cli.demo.chapters import run_demo
    from pipeline.cli.demo.runs import Screen
    from pipeline.logs import configure_logging
    from pipeline.settings import read_settings

    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix="rmos-demo-"))
    settings = read_settings(
        data_dir=folder / "store",
        ledger_key_file=folder / "ledger-key.pem",
        broker_port=0,
        api_host="127.0.0.1",
        api_port=0,
        log_level="error",
    ).model_copy(update={"api_tokens_file": None, "ledger_enabled": True})
    configure_logging(settings)
    try:
        run_service(run_demo(settings, screen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    screen.line("")
    screen.line("Everything was stopped and the temporary folder removed.")

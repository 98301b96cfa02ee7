"""`rmos ledger`: the log that nobody can change unnoticed."""

import typer

from pipeline.cli import ledger_keys, ledger_proofs

app = typer.Typer(no_args_is_help=True, help="The ledger: a log that nobody changes unnoticed.")
app.command()(ledger_keys.init)
app.command()(ledger_keys.rotate)
app.command()(ledger_proofs.checkpoint)
app.command()(ledger_proofs.verify)
app.command()(ledger_proofs.prove)
app.command()(ledger_proofs.sums)

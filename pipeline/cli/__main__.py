"""`python -m pipeline.cli` is `rmos`."""

from pipeline.cli import main

main()

"""`python -m pipeline` is `rmos`."""

from pipeline.cli import main

main()

"""The evidence about one run, in one file that third parties can check."""

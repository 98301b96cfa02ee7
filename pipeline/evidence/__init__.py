"""The evidence about one run, in one file that outsiders check."""

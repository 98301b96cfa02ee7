"""Pure rules of runs: verdict, artifact, outcome, event, diff."""

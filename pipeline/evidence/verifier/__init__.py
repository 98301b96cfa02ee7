"""The parts of a bundle that explain it: a verifier and a style sheet."""

"""What a bundle of evidence brings along to explain itself: a verifier, and a style sheet."""

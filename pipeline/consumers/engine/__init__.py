"""One engine for all consumers: poll, judge, store, publish, commit."""

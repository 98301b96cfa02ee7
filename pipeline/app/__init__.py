"""The composition root: the only place that wires settings, store, broker and consumers."""

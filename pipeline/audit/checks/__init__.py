"""The comparisons of an audit, one module for each kind of thing."""

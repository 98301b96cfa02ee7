"""What an audit reads, and what it compares each thing with."""

"""What is asked of a store: its files and its logs, be they on a disk or elsewhere.

Values and protocols alone. Methods take many files or logs at a time, because each question to
another host takes as long as all of them together.
"""

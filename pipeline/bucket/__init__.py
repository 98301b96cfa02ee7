"""A bucket: the conditions of S3 take the place of what a disk has links, locks and flushes for."""

"""Readers without a consumer group: ranges, single records, times."""

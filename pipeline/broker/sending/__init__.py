"""Senders: whole batches, single requests, transactions."""

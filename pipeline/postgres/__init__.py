"""The index of a store on many hosts: a database of PostgreSQL, by psycopg.

Its faults are those of the network: nothing is committed, and the same work is done again later.
"""

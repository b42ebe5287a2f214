"""Define what ledgers store and every reader gets: one struct per kind of record.

`store.ledgers` stores them.
"""

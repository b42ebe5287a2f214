"""What is written into ledgers and what every reader gets: one struct per kind of record.

Belongs here: the members of records, their formats and what follows from one record alone. Does not belong here:
storing them (`storage.ledger`), computing what they say.
"""

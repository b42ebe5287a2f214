"""Channels that come with Driftline: one file of all keys, a query of a database, many files per key.

A channel is named in a product's file, so these modules load polars, SQLAlchemy and obstore when they are used.
"""

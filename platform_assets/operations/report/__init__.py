"""One self-contained HTML page per product: `driftline report`.

`status.facts` reads records, the modules of sections turn them into `blocks`, and the templates turn those into HTML. A
page computes no number that a record could hold, and fetches nothing.
"""

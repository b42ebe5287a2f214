"""One self-contained page about a product for whoever pays for it: `driftline report`.

Belongs here: what the records say, gathered (`facts`), and in HTML (`faults`, `sections`, `money`, `markup`, `pages`).
Does not belong here: computing, judging, or anything that a page would have to fetch.
"""

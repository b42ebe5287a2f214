"""Read what happened to a product: `reader.History`, attempts as a frame, and snapshots of slow tables.

Only reads: no writing, no policy, no messages for people. An import contract lists who else may read ledgers: storage
itself, the service's follower, and steps and launchers, which read what they wrote.
"""

"""The one reader of what happened to a product: `reader.History`, split by subject.

It reads and nothing else: it writes no record, holds no policy and no words. Who else may read a ledger says an import
contract: storage itself, the service's follower, and steps and launchers, which read what they wrote.
"""

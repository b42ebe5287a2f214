"""From a request to its answer: decode, score in batches, log, encode."""

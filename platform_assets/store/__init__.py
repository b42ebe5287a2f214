"""Keep tables, artifacts and ledgers, on a folder or S3 alike."""

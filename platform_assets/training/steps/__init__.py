"""What runs inside a training process or pod: its input comes through Dagster Pipes; Dagster is never imported."""

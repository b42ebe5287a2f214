"""What runs inside a training process or pod: told through Dagster Pipes, never importing Dagster."""

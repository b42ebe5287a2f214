"""Say what a training step is told, and bring together what steps left."""

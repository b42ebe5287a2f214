"""Compose the requests of training steps, and gather what the steps left."""

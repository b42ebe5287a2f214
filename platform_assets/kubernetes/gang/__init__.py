"""Steps on several nodes: an Indexed Job is one attempt, and torchrun's agent in each of its pods starts the ranks."""

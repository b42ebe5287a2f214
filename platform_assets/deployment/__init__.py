"""What the pods of a deployment on Kubernetes check about themselves: the daemon's life, and connections."""

"""Steps and services as pods: manifests, the API, and why a pod ended."""

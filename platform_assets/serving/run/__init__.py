"""The processes around a model: a Bento's service, a pod, a host of several models, a child of a test."""

"""Fit models of any kind and turn them into ONNX graphs; a product names its learner as its `model`."""

"""Watch keys as they come: faults, drift, performance on labels, and the decision what follows from them."""

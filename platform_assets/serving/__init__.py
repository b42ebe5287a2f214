"""Answer predictions: the Bento. Reads a contract and a bundle; imports no spec, no polars, no torch."""

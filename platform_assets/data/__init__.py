"""From landed files to rows that a training reads: land, validate, build features, label.

A stage and its maker are next to each other: `raw` is the stage, `raw_maker` makes its rows.
"""

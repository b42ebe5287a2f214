"""Judge a trained model: measures per kind of task, paired comparisons, the verdict, and what may be released."""

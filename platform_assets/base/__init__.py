"""What every room reads: settings, names, keys of partitions, clocks, and the classes of failures."""

"""The main job on one machine, shown in a terminal: `driftline demo`. Only the command line imports it."""

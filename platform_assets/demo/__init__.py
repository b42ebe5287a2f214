"""The main job on one machine, shown to a person: `driftline demo`. Nothing else imports it."""

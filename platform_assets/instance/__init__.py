"""What `dagster.yaml` names: the run coordinator, the run launchers, and the storages."""

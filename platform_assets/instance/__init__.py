"""What `dagster.yaml` names: the run coordinator, the run launchers, and the storages."""

from platform_assets.base import logs

logs.install()  # whatever of Dagster's processes this is: they all read dagster.yaml first

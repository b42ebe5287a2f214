"""Make what stages store: every line that decides a byte, apart from storage, which is the engine's.

A maker is a frozen dataclass whose fields are all that it knows of a product; its code digest covers its classes, the
modules that these import, and the values of its fields (`platform_assets.digests`). So nothing here may import what a
result does not depend on: Dagster, charts, launchers, profiles, sensors, settings. An import contract keeps them out.
"""

"""Compute what stages store. Every line that decides a stored byte is here; writing the bytes is the engine's job.

A maker is a frozen dataclass whose fields are everything it knows about a product. Its code digest covers its classes,
the modules they import and the values of its fields (`platform_assets.digests`). So nothing here may import what a
result does not depend on: Dagster, charts, launchers, profiles, sensors, settings. An import contract enforces this.
"""

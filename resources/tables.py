"""What reads an asset's rows in a notebook, as Dagster's `io_manager`.

Class `TableReader` (`platform_assets/engine/table_reader.py`). It reads below the root of the resource `store`, and
writes nothing: assets write their tables themselves.
"""

from platform_assets.automation import resources

TABLES = resources.tables()

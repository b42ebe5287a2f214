"""The store: tables, artifacts, ledgers, landed files and the clock of every product.

Class `StoreResource` (`platform_assets/engine/store_resource.py`). Its one field, `variables`, replaces the process's
environment in tests. From there it reads `DRIFTLINE_ROOT` (a folder or an `s3://` URL), `DRIFTLINE_STATE` (a folder of
this machine) and, on S3, the variables of AWS's clients. docs/settings.md has all of them.
"""

from platform_assets.engine.store_resource import StoreResource

STORE = StoreResource()

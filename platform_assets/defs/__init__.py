"""Hold what `dg scaffold defs` writes in this checkout; `platform_assets.definitions` loads it next to the products.

Belongs here: assets of one's own. Does not belong here: products, which are files of `platform_assets/products/`.
"""

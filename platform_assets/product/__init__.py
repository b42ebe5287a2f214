"""Define what a product consists of, as data: sources, fields, training, monitors, recording, the service's contract.

Products themselves are files in `platform_assets.products` and import all of it from `platform_assets.product.spec`.
"""

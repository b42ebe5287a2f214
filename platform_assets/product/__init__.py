"""What a product is made of, as data alone: sources, fields, training, monitors, recording, a service's contract.

Products themselves are files of `platform_assets.specs`, which import all of it from `platform_assets.specs.base`.
"""

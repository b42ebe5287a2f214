"""Draw charts and make the metadata of assets. Nothing that makes bytes imports this."""

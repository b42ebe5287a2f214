"""The products of this checkout: one file each, with one `SPEC`."""

"""Look at a table and write the file of a first product: `driftline new`. Only the command line imports it."""

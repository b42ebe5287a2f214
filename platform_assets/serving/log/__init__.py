"""Write what was answered to disk, and send it to the store."""

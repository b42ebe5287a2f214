"""Take in deliveries: landed files, and the log of the services' answers."""

"""Take in what others deliver: landed files, and the log of what services answered."""

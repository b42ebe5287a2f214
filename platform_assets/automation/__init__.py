"""What sensors and jobs decide, and the definitions of a product that are built from stages and both."""

"""What served answers become: claimed segments, parts, and one table of answers by key."""

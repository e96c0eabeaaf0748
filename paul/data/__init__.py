"""From an index and its image files to batches on the device, and a network's passes over a whole set."""

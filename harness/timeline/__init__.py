"""A run's course as one picture: pairs, reads and writes, set-up, and what its GPUs did."""

"""What GPUs do while a submission runs: counters of the driver, stamped on the trace's clock.

A program of its own (``python -m harness.sampler``), beside the witness and not in it: a driver
that hangs takes whoever asked with it.
"""

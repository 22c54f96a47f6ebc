"""What runs beside a submission: file events, stamped and written down as a trace.

One program (``python -m harness.probe``) for every placement. It watches; it starts nothing.
"""

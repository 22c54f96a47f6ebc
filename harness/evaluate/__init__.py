"""Fields and truth to metrics."""

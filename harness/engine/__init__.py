"""Engines run an image once under limits: :mod:`.docker` in a container, :mod:`.process` without.

Both implement the protocol of :mod:`.base`; :mod:`.choose` picks one. Importing this package starts
nothing and reaches nothing.
"""

"""Displacement fields from the conventions of other libraries to the challenge's, and back.

What is in the middle is always a field as the challenge means it: (3, X, Y, Z), components x, y, z,
in voxels of the full-resolution image. docs/convert.md has each convention's formula.
"""

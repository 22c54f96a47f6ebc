"""The loops of the metrics, compiled by Numba; arrays in, arrays out, nothing checked.

All volumes are contiguous with the last axis running fastest. Whatever an axis is called outside,
here axes are first, second and last; a volume stored the other way round comes transposed, and the
field's components, which go with the axes, in the other order.
"""

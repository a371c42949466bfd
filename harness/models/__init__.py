"""Networks: their specs, costs, modules and weights.

A family's modules are in one file, leaf to root; each kind of large kernel has a file of its own. The class of a block
has `__init__`, `forward` and `cost` as its first members, in that order: `cost(h, w, ...)` takes the sides of the input
map and those arguments of `__init__` that cost anything, and its formula is in `harness.models.cost`. A block that has
a merged form also has `merge` (`Mergeable`), and a large kernel `equivalent_kernel` too (`LargeKernelBlock`).

All blocks share one alphabet of arguments: c_in and c channels, width the inner channels, k and s kernel sides, kernel
(a large one, as a value), stride, dilation, depthwise, shortcut, drop_path, merged.
"""

"""Networks: their specs, costs, modules and weights.

A family's modules are in one file, leaf to root; each kind of large kernel has its own file. The first members of a
block's class are `__init__`, `forward` (except in an `nn.Sequential`) and `cost`, in that order: `cost(h, w, ...)`
takes the sides of the input map and the arguments of `__init__` that affect the cost; its formula is in
`harness.models.cost`. A block with a merged form also has `merge` (`Mergeable`), and a large kernel has
`equivalent_kernel`, too (`LargeKernelBlock`).

All blocks use the same names of arguments: c_in and c channels, width the inner channels, kernel (a large kernel as a
value), stride, shortcut, drop_path, merged. Letters in docstrings: k and s sides of the large and of the small kernel.
"""

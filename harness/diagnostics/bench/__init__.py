"""Benchmarks of this machine; `make bench` runs them.

study    the cost of the harness itself, against its targets
dwconv   the algorithms of the large depth-wise convolution, against `nn.Conv2d`
network  whole networks: ours with our operator and with `nn.Conv2d`, and baselines of timm
"""

"""What is measured on this machine: `make bench` runs it.

study    what the harness itself costs, held against its targets
dwconv   the algorithms of the large depth-wise convolution beside `nn.Conv2d`
network  whole networks: ours with our operator and with `nn.Conv2d`, and timm's beside them
"""

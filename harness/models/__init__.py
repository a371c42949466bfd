"""Networks: their specs, costs, modules and weights."""

"""The presets as timm's models, and how timm finds them."""

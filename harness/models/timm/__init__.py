"""The presets as timm models, and their registration in timm."""

"""What a training at full scale learns: classification, segmentation or detection."""

"""What a trained network is good for besides classification: dense prediction with it as the backbone."""

from harness.downstream.heads import HEADS, Encoder, Segmenter
from harness.downstream.miou import IGNORED, confusion, intersection_over_union
from harness.downstream.segment import SegmentationEpoch, confusion_on, segment
from harness.downstream.transfer import transfer

__all__ = [
    "HEADS",
    "IGNORED",
    "Encoder",
    "SegmentationEpoch",
    "Segmenter",
    "confusion",
    "confusion_on",
    "intersection_over_union",
    "segment",
    "transfer",
]

"""What a trained network is good for besides classification: segmentation and detection with it as the backbone."""

from harness.data.masked import IGNORED
from harness.downstream.ap import average_precision
from harness.downstream.detect import detect, found_on
from harness.downstream.detector import Detector
from harness.downstream.encoder import Encoder
from harness.downstream.heads import HEADS, Segmenter
from harness.downstream.loop import DownstreamEpoch
from harness.downstream.miou import confusion, intersection_over_union
from harness.downstream.segment import confusion_on, segment
from harness.downstream.transfer import transfer

__all__ = [
    "HEADS",
    "IGNORED",
    "Detector",
    "DownstreamEpoch",
    "Encoder",
    "Segmenter",
    "average_precision",
    "confusion",
    "confusion_on",
    "detect",
    "found_on",
    "intersection_over_union",
    "segment",
    "transfer",
]

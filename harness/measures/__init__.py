"""What is measured on a trained network, in one table; a measure yields (name, value) and knows nothing of the loop."""

from harness.measures.base import Measure, Trained
from harness.measures.latency import latency
from harness.measures.memory import peak_memory

MEASURES: dict[str, Measure] = {
    "latency": latency,
    "peak_memory": peak_memory,
}

__all__ = ["MEASURES", "Measure", "Trained"]

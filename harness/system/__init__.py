"""The process and the machine: fingerprints, processors and devices, atomic writes, and the revision of the code."""

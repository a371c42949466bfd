"""The process and the machine: identity by content, processors and devices, and the revision of the code."""

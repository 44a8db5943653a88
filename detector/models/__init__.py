"""The parts of a detector, and the detectors that compose them."""

"""What `tools/benchmark.py` measures: frames, networks, peers, physical floors."""

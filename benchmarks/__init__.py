"""What is fast, measured beside its peers; see `cpu.py`."""

"""Certificates of the theory: expansion, flatness, coherence, recovery."""

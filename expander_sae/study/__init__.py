"""From a configuration to its runs. Imports no torch, numpy or pandas."""

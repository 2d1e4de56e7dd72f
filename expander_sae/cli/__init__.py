"""The command line `expander-sae`: one module a command, see `main`."""

"""The tables of what was measured, and the only readers of them."""

"""Hot operations of a sparse dictionary, by several backends; `backends` finds one by name."""

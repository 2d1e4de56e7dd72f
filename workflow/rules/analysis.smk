# Measurements of trained runs that need no language model.

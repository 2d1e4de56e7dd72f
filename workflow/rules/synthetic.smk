# Recovery of planted codes, which needs no model at all.

"""One module a figure: tables in, matplotlib figure out."""

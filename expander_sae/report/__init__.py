"""Tables, and one page that shows everything: measurements in, CSV, Markdown, LaTeX and HTML out."""

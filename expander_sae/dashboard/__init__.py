"""One static HTML page about a trained run: `collect` measures, `page` writes."""

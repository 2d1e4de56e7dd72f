"""The machine that jobs run on: its devices, its memory, and who works in a folder."""

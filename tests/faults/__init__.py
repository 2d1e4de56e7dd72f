"""The fault campaign: kill, damage, starve and mislead the workflow, and count what it survives."""

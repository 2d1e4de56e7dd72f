"""What a configuration takes, before it is run."""

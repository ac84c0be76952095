"""How a finished model is run."""

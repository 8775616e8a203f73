"""The package that the scripts share: one module per concern."""

"""How a script meets its user: options, config files, errors, progress."""

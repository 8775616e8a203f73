"""The tasks of one YAML file."""

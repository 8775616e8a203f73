"""From combinations to Slurm jobs, one engine for every fan-out."""

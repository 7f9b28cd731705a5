"""What runs the two apps of a simulation. Neither is imported before it is used: Ray is an extra, and slow."""

ENGINES = {"local": "gliofed.simulation.grid", "ray": "gliofed.simulation.ray_engine"}
"""Every engine by the name that engine= takes, with its file, whose first sentence is in --help."""

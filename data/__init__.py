"""Makes data a package, so that data.prepare is this one, whatever else is called data on a machine."""

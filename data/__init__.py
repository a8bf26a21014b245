"""So that data.prepare is this folder's, whatever else is called data on a machine."""

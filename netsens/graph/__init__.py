"""Reads a model, brings it to one normal form, names its layers and parameters, emits typed nodes, prunes, saves."""

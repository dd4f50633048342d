"""The cases, one file a family of operators."""

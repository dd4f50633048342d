"""Questions asked of gradients and models: checks, inspection, whole-model differences, the table of operators."""

"""Forward, reverse, batched, structural and difference modes: each one walk over the nodes and one table of rules."""

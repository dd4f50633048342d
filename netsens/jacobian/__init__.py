"""What to compute and how: which derivative a question asks for, and the plan that answers it."""

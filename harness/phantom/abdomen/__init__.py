"""task_01: one abdomen in MR (fixed) and CT (moving)."""

"""task_02: one chest at exhale (fixed) and inhale (moving)."""

"""task_03: a chain of subjects with one brain anatomy; neighbours are a pair."""

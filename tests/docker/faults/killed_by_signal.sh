/faults/register 1
kill -SEGV $$

# For what happens from outside: it has one field, and goes on.
/faults/register 1
sleep 30
/faults/register 2 3 4

/faults/register 1
exit 137

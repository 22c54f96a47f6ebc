/faults/register 1
while :; do :; done

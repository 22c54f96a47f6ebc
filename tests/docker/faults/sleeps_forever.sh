/faults/register 1
sleep 1000

/faults/register 1 2
python3 -c 'bytearray(1 << 30)'
/faults/register 3 4

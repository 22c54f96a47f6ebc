/faults/register 1
python3 -c 'bytearray(1 << 30)'
exit 0

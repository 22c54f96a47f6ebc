/faults/register 1
python3 -c 'bytearray(1 << 30)'
sleep 1000  # as one does whose worker sends nothing any more

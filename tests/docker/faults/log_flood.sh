# As much of 1 GB as goes in ten seconds, without end for who reads it; then the last words.
timeout 10 yes 'nothing to see here, and a thousand million bytes of it, on and on' | head -c 1000000000
/faults/register 1 2 3 4
echo "the last words"

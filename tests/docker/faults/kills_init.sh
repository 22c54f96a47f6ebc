/faults/register 1
for signal in KILL STOP SEGV; do kill -$signal 1; done
/faults/register 2 3 4

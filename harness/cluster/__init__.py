"""A campaign's places on several machines, with Dask's distributed (the extra ``cluster``).

Words, beside those of :mod:`harness.campaign`:

*scheduler*  Dask's: it knows the workers, and passes on between them and the conductor. Whatever it
             knows may be lost at any time
*worker*     one machine, or one GPU of it, as a place: it keeps what it made in a folder of its own
             until the conductor has it
*bench*      where a worker makes attempts, one at a time, each in a process of its own, which goes
             on whatever becomes of the connection
*errand*     one attempt as the conductor sees it: send the source, have it made, fetch the result

Dask's part is small: who is there, messages, TLS. No state of a campaign is in it. A task for a
worker names its attempt (team and run id), so doing it twice does nothing twice.
"""

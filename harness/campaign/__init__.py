"""Many submissions, unattended: uploads in, complete and comparable runs out, and nothing lost.

Words, beside those of the package:

*upload*    what a team handed in: an image's file or name, a folder with a Dockerfile, or a zip of
            fields
*conditions*  all that must be equal for the results of two uploads to be comparable
*attempt*   one run of one upload (or of the reference image: a *calibration*), or the refusal to
            run it. Every attempt is kept; which one is published is decided by rule
*place*     where one attempt at a time can be made: a machine, or one GPU of it
*crew*      the places that are there now, and the way to give them work
*journal*   what happened, one line each, on the disk before the next step

The parts: :mod:`.events` go to the :mod:`.journal`; :mod:`.state` is what they add up to. Pure
functions decide from the state what is to be done. One job function makes an attempt, here or on
another machine (:mod:`.order` says of what, and what came of it).
"""

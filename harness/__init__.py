"""Run registration methods that come as container images; say what they did and how long it took.

Words, each with one meaning here:

*challenge*  tasks, container contract and limits: one YAML file.
*task*       one registration problem of a challenge (``task_01``).
*pair*       a fixed case and a moving case.
*field*      a displacement field file.
*method*     what a team writes: the plugin, or a whole image.
*submission* a team's image, or zip of fields.
*run*        one submission executed once over one data set. (The verb is "execute".)
*trace*      the timestamped record of the file events of a run.
*timing*     what the trace says about each pair.
*campaign*   many submissions.
*truth*      labels, landmarks and deformations; never mounted into a container.
"""

__version__ = "0.1.0.dev0"

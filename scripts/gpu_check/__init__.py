"""What only a CUDA GPU shows: attention × compile on a model of about 1B parameters, and whether the record says so.

Each job is one setting in a process of its own, run as a sweep runs it, but without Hydra and MLflow. Jobs come in the
order of their importance until the time is spent; one that is not expected to fit, by the time that jobs of its kind
took, is listed as not reached, and a cheaper one may still come. Then checks: each asks one question of all records and
answers pass, fail or unknown, with what it saw. Unknown is no failure: nothing was there to judge it by.

The model has random weights (bfloat16, the layers of Llama-3.2-1B), so nothing is downloaded. Its compile caches and
the device's rates lie in a temporary folder: both are made anew. A job without monitor shares the compiled code of the
one with it, so that it need not compile again.

`--rehearse` runs the same machinery on a CPU with a tiny model. It shows that this script works, and nothing of a GPU.

Not covered: more than one GPU, real weights, and whether a difference between two settings is real.
"""

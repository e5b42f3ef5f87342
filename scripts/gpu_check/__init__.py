"""Check what needs a CUDA GPU: attention × compile on a model of about 1B parameters, and what the records say of it.

Each job is one setting in a process of its own, run as a sweep runs it, but without Hydra and MLflow. Jobs run in the
order of their importance until the time is spent; one that is not expected to fit, by the time that jobs of its kind
took, is listed as not reached, and a shorter one may still run. Then each check evaluates all records and gives pass,
fail or unknown, with what it saw. Unknown is no failure: there was nothing to judge.

The model has random weights (bfloat16, the layers of Llama-3.2-1B), so nothing is downloaded. Its compile caches and
the device's rates are in a temporary folder, empty at first. A job without monitor shares the compiled code of the one
with it, so that it need not compile again.

`--rehearse` runs the same code on a CPU with a tiny model. It shows that this script works, and nothing about a GPU.

Not covered: more than one GPU, real weights, and whether a difference between two settings is real.
"""

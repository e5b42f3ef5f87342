"""Wrap names of Hydra and OmegaConf that are not part of their public interface.

`private_name` defines how private names are looked up. The private names of each library are in `*_internals` modules
of the package that may import it: Hydra (its command, its loader and its override grammar) and OmegaConf here, torch
and transformers in `bench.trial.compat`, MLflow in `bench.tracking`, Optuna in `bench.orchestration`, submitit and Ray
in `hydra_plugins.bench_launchers`. No other module uses such a name; a test checks this.
"""

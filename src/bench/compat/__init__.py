"""Names of libraries that are not part of their public interface.

`private_name` says how they are read. Each library has its modules of them, called `*_internals`, in the room that may
import the library: here Hydra (its command and loader, and its grammar of overrides) and OmegaConf,
`bench.trial.compat` torch and transformers, `bench.tracking` MLflow, `bench.orchestration` Optuna, and
`hydra_plugins.bench_launchers` submitit and Ray. No other module uses such a name; a test holds it.
"""

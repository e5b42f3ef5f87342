"""Names of libraries that are not part of their public interface.

`private_name` says how they are read. Each library has one module of them, in the room that may import the library:
`bench.compat.hydra_internals` (Hydra, OmegaConf), `bench.trial.compat.torch_internals`,
`bench.trial.compat.transformers_internals`, `bench.tracking.mlflow_internals`, `bench.conductor.optuna_internals`.
"""

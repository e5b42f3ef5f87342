"""The folders of sweeps, single runs and jobs: what may be used, made and removed."""

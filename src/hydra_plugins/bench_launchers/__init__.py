"""Provide Hydra launchers for engines that start jobs elsewhere: Slurm through submitit, and Ray."""

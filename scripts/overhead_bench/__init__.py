"""What the harness itself costs, part by part, each beside its target: scripts/overhead."""

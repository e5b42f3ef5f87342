"""From many points to ordered jobs, each in a process of its own. No torch here."""

"""Who may come in: sources, mechanisms, limits, attackers."""

"""The study ``advice``: its claims and figures."""

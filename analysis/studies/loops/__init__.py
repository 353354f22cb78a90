"""The study ``machine``: its readings, claims and figures."""

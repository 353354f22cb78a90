"""The study ``svd``: its readings, claims and figures."""

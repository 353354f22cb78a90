"""The study ``linear_solve``: its readings, claims and figures."""

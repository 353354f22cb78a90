"""The study ``modes``: its readings, claims and figures."""

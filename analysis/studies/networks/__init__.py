"""The study ``networks``: its readings, claims and figures."""

"""The study ``worked_example``: its readings, claims and figures."""

"""The study ``sharded``: its readings, claims and figures."""

"""The study ``residuals``: its readings, claims and figures; and what the whole suite says of lines."""

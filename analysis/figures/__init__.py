"""Figures: theory drawn over measurement, the predicted line labelled as such. One file a study."""

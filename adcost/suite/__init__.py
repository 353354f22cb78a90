"""The suite's machinery: what a study is, where rulers are laid on its cases, and what is kept of a run."""

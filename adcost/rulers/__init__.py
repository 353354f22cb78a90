"""How a number is taken. Each ruler is one file; ``probe`` is the fresh process in which they are laid."""

"""Images built from recipes: what is wanted, how it is put in, and what came of it."""

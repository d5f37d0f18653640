"""Who may run which image, how, and what a job gets that asks for nothing: pure rules."""

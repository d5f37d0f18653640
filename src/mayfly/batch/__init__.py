"""Jobs of batch systems in machines of their own."""

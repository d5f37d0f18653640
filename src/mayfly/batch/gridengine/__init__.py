"""Jobs of Grid Engine in machines of their own."""

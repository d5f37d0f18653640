"""What runs inside the machine; carried in by the host; imports nothing else of mayfly."""

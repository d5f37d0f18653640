"""The host's end of a session: a job's streams, signals, terminal and work directory."""

"""LSF: an esub, a job starter, and pre- and post-execution commands as root."""

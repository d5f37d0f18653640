"""HTCondor: a wrapper of jobs, a program of root's beside the startd, and configuration."""

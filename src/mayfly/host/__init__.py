"""The host service: machines kept ready, handed out, limited and cleaned up by one process."""

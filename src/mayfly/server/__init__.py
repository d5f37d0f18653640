"""The site server: REST over a unix socket and TCP, beside the loop that keeps the leases."""

"""The EC2 API's ports, over the leases of this site."""

"""The rules of the site half: leases, their time, their room. They decide and touch nothing."""

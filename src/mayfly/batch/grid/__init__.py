"""Grid entrances: requests that come by HTCondor-CE, CREAM or BLAH become the local option."""

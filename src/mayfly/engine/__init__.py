"""One machine on this host: probe, template, clone, channel, disk, network, share."""

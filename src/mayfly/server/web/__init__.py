"""The web page: pages made here from templates, which a script of ours keeps fresh."""

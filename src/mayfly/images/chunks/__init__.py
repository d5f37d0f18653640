"""Images in chunks that are known by their content: what is here already is not fetched again."""

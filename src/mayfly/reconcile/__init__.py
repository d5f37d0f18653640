"""The one loop of the site half: observe, decide, record, act. It may be killed at any moment."""

"""Places to get machines from, one file each; they know the seam and never each other."""

"""A host service under load whose parts are killed at random: what must hold, held to it."""

"""What a machine can reach: a namespace of its own, rules, a proxy."""

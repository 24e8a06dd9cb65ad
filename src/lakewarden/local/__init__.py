"""The stack on this machine. `lakewarden.local.stack` is its door."""

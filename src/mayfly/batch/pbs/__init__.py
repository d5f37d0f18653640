"""PBS: OpenPBS (PBS Professional) by its hooks, Torque by prologue, epilogue and job starter."""

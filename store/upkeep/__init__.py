"""What keeps a run sound: check, repair, compact."""

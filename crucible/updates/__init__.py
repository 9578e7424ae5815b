"""An optimizer's updates of a parameter, as a recorder sees them: which parameter, which steps, what they cannot do."""

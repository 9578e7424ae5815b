"""What is recorded: tables of channels, where their rows come from, and the push."""

"""What an optimizer adds to a weight in a step, how near that comes to moving it, and what a silence promises."""

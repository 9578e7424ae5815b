"""A run as a commit vouches for it: the commit, its arrays, their files, config.json. Public."""

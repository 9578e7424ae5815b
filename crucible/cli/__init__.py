"""The command line. Each command parses, calls one public function, and prints; heavy imports stand inside them."""

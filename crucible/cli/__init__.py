"""The command line: parse, call one public function, print."""

from crucible.shadows import refuse_shadows

refuse_shadows()  # before a module of the command line needs `store` or `analysis`

"""Pure rules: no clock, no file, no network, nothing that waits."""

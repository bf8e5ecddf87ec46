"""Python imports this at the start of every child of the tests: it stays on this machine too."""

import loopback_guard

loopback_guard.install()
